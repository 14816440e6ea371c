"""`referral worker` and `referral jobs`, as an operator runs them."""

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


def command_environment(settings: Settings) -> dict[str, str]:
    """Return the settings of a command over the test's database."""
    return {
        "database_url": settings.database_url or "",
        "signing_key_file": settings.signing_key_file,
        "log_level": "error",
    }


async def test_a_worker_alone_mails_and_ends_when_asked_to(
    settings: Settings, sink: SmtpSink, database_url: str
) -> None:
    """What the API left to it goes out; SIGTERM gives back a job that hangs, and exits with 0."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink.reply = lambda mail: None if mail.to.startswith("hang") else "250 OK"
    async with run_service(settings) as service:
        ann = await join(service)
        await register(service, f"hang{new_email()}")
    worker = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command
        [*COMMAND, "worker"],
        env=environment(settings.data_dir, smtp_url=sink.url, **command_environment(settings)),
    )
    await wait_until(lambda: sink.mails_to(ann.email))
    connection = await asyncpg.connect(database_url)
    # The worker prunes once an hour, perhaps just now.
    running_jobs = (
        "SELECT count(*) FROM pgqueuer WHERE status = 'picked' AND entrypoint <> 'pruning'"
    )
    await wait_for_value(lambda: connection.fetchval(running_jobs))
    worker.terminate()
    assert worker.wait(STOP_SECONDS) == 0
    status = "SELECT status::text FROM pgqueuer WHERE entrypoint <> 'pruning'"
    assert await connection.fetchval(status) == "queued"
    await connection.close()


async def test_a_service_with_a_hanging_mail_ends_when_asked_to(
    tmp_path: Path, sink: SmtpSink
) -> None:
    """The inline worker does not hold it up for longer than its grace."""
    sink.reply = lambda _: None
    with running_service(tmp_path / "data", smtp_url=sink.url) as service:
        async with httpx.AsyncClient(base_url=service.url) as client:
            await register(client)
        await wait_until(lambda: sink.connections)
        assert service.stop() == 0


async def test_an_operator_sees_puts_back_and_discards_jobs(
    settings: Settings, sink: SmtpSink, database_url: str, tmp_path: Path
) -> None:
    """By kind, one by one with the fault, and its traceback."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    sink.reply = lambda _: "554 5.7.1 no"
    mailing = {"smtp_url": sink.url, **command_environment(settings)}
    async with run_service(settings) as service:
        await join(service)
        await join(service)
    worker = subprocess.Popen(  # noqa: ASYNC220, S603 - our own command
        [*COMMAND, "worker"], env=environment(tmp_path, **mailing)
    )
    connection = await asyncpg.connect(database_url)
    held = "SELECT array_agg(id) FROM pgqueuer WHERE status = 'failed' HAVING count(*) = 2"
    first, second = await wait_for_value(lambda: connection.fetchval(held))
    worker.terminate()
    worker.wait(STOP_SECONDS)

    def jobs(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, "jobs", *arguments, **command_environment(settings))

    assert ["welcome-mail", "0", "0", "2", "0"] in [
        line.split() for line in jobs().stdout.splitlines()
    ]
    assert "SMTPDataError 554 5.7.1" in jobs("list").stdout
    assert "MailRefused" in jobs("trace", str(first)).stdout
    assert jobs("retry", str(first)).stdout == "Put back: 1\n"
    assert jobs("list", "--status", "waiting").stdout.splitlines()[1].startswith(str(first))
    assert jobs("discard", str(first), str(second)).stdout == "Discarded: 2\n"
    left = "SELECT count(*) FROM pgqueuer WHERE entrypoint <> 'pruning'"
    assert await connection.fetchval(left) == 0
    assert jobs("trace", str(first)).returncode == 1
    assert jobs("retry").returncode == 2
    await connection.close()


def test_the_page_of_jobs_wants_a_login(settings: Settings, tmp_path: Path) -> None:
    """It can change jobs, so it does not start without one (11)."""
    assert "PGQUEUER_WEB_PASSWORD" not in os.environ
    refused = run_command(tmp_path, "jobs", "web", **command_environment(settings))
    assert refused.returncode == 1
    assert "Set PGQUEUER_WEB_USER and PGQUEUER_WEB_PASSWORD" in refused.stderr
