"""`referral worker` and `referral jobs`, run as processes."""

import os
import subprocess
from pathlib import Path

import asyncpg
import httpx

from referral.settings import Settings
from tests.conftest import execute, run_service
from tests.support.api_client import join, new_email, register
from tests.support.service_process import COMMAND, environment, run_command, running_service
from tests.support.smtp_sink import SmtpSink
from tests.support.waiting import wait_for_value, wait_until

STOP_SECONDS = 12


def command_settings(settings: Settings) -> dict[str, str]:
    """Return the settings of a command on the test's database."""
    return {
        "database_url": settings.database_url or "",
        "signing_key_file": settings.signing_key_file,
        "log_level": "error",
    }


async def test_worker_sends_mail_and_stops_on_sigterm(
    settings: Settings, sink: SmtpSink, database_url: str
) -> None:
    """SIGTERM requeues a job that hangs, and the exit code is 0."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink.reply = lambda mail: None if mail.to.startswith("hang") else "250 OK"
    async with run_service(settings) as service:
        ann = await join(service)
        await register(service, f"hang{new_email()}")
    worker = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command
        [*COMMAND, "worker"],
        env=environment(settings.data_dir, smtp_url=sink.url, **command_settings(settings)),
    )
    await wait_until(lambda: sink.mails_to(ann.email))
    connection = await asyncpg.connect(database_url)
    # The hourly pruning may run at this moment.
    running_jobs = (
        "SELECT count(*) FROM pgqueuer WHERE status = 'picked' AND entrypoint <> 'pruning'"
    )
    await wait_for_value(lambda: connection.fetchval(running_jobs))
    worker.terminate()
    assert worker.wait(STOP_SECONDS) == 0
    status = "SELECT status::text FROM pgqueuer WHERE entrypoint <> 'pruning'"
    assert await connection.fetchval(status) == "queued"
    await connection.close()


async def test_hanging_mail_does_not_delay_the_shutdown(tmp_path: Path, sink: SmtpSink) -> None:
    """The inline worker delays the shutdown by its grace period at most."""
    sink.reply = lambda _: None
    with running_service(tmp_path / "data", smtp_url=sink.url) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            await register(client)
        await wait_until(lambda: sink.connections)
        assert service.stop() == 0


async def test_jobs_are_listed_retried_and_discarded(
    settings: Settings, sink: SmtpSink, database_url: str, tmp_path: Path
) -> None:
    """The commands show counts by kind, the error of each job and its traceback."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink.reply = lambda _: "554 5.7.1 no"
    worker_settings = {"smtp_url": sink.url, **command_settings(settings)}
    async with run_service(settings) as service:
        await join(service)
        await join(service)
    worker = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command
        [*COMMAND, "worker"], env=environment(tmp_path, **worker_settings)
    )
    connection = await asyncpg.connect(database_url)
    held = "SELECT array_agg(id) FROM pgqueuer WHERE status = 'failed' HAVING count(*) = 2"
    first, second = await wait_for_value(lambda: connection.fetchval(held))
    worker.terminate()
    worker.wait(STOP_SECONDS)

    def jobs(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, "jobs", *arguments, **command_settings(settings))

    assert ["welcome-mail", "0", "0", "2", "0"] in [
        line.split() for line in jobs().stdout.splitlines()
    ]
    assert "SMTPDataError 554 5.7.1" in jobs("list").stdout
    assert "MailRefused" in jobs("trace", str(first)).stdout
    assert jobs("retry", str(first)).stdout == "Requeued: 1\n"
    assert jobs("list", "--status", "waiting").stdout.splitlines()[1].startswith(str(first))
    assert jobs("discard", str(first), str(second)).stdout == "Discarded: 2\n"
    remaining = "SELECT count(*) FROM pgqueuer WHERE entrypoint <> 'pruning'"
    assert await connection.fetchval(remaining) == 0
    assert jobs("trace", str(first)).returncode == 1
    assert jobs("retry").returncode == 2
    await connection.close()


def test_jobs_page_requires_a_login(settings: Settings, tmp_path: Path) -> None:
    """The page can change jobs, so it does not start without credentials."""
    assert "PGQUEUER_WEB_PASSWORD" not in os.environ
    result = run_command(tmp_path, "jobs", "web", **command_settings(settings))
    assert result.returncode == 1
    assert "Set PGQUEUER_WEB_USER and PGQUEUER_WEB_PASSWORD" in result.stderr
