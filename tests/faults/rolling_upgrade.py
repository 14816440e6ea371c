"""Two releases beside each other, with a migration in between (row 48).

The release before is installed from its commit, with the versions of its own lock.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import asyncpg

from tests.conftest import execute, fetch_value, replace_database
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import SUCCESS, Workload, count_statuses, run_workload
from tests.support.nginx import run_nginx
from tests.support.service_process import (
    COMMAND,
    STOP_SECONDS,
    Service,
    environment,
    free_port,
    running_service,
)
from tests.support.waiting import wait_for_value, wait_until

ROOT = Path(__file__).parents[2]
PREVIOUS_RELEASE = "77788af1448fe18ff0656f53b9517565a85f1dec"
"""The commit of the release before; until 0.2.0 the state before events, webhooks and pages.

Not its tag, which a clone may not have.
"""

INSTALLATIONS = ROOT / ".releases"
REQUESTS = 10_000
STEP_SECONDS = 300.0
DRAIN = ("--drain", "1")
# Mails about referrals wait: an address gets five in an hour.
OPEN_JOBS = "SELECT count(*) FROM pgqueuer WHERE status <> 'failed' AND execute_after <= now()"
HELD_JOBS = "SELECT count(*) FROM pgqueuer WHERE status = 'failed'"


def install(commit: str) -> tuple[str, ...]:
    """Install a release in a folder of its own; return its command."""
    folder = INSTALLATIONS / commit
    python, done = folder / "venv/bin/python", folder / "installed"
    # Isolated, so that it finds no module of this release.
    command = (str(python), "-I", "-m", "referral")
    if done.exists():
        return command
    (folder / "source").mkdir(parents=True, exist_ok=True)
    archive = _run("git", "-C", str(ROOT), "archive", commit)
    subprocess.run(  # noqa: S603 - a fixed command
        ["tar", "-x", "-C", str(folder / "source")],  # noqa: S607
        input=archive,
        check=True,
    )
    _run(sys.executable, "-m", "venv", str(folder / "venv"))
    install = (str(python), "-m", "pip", "install", "--quiet", "--no-deps")
    _run(*install, "--require-hashes", "-r", str(folder / "source/requirements.lock"))
    _run(*install, "--no-build-isolation", str(folder / "source"))
    done.touch()
    return command


def run(requests: int = REQUESTS) -> ScenarioReport:
    """Upgrade step by step: schema, worker, and one API process after the other."""
    report = ScenarioReport()
    old = install(PREVIOUS_RELEASE)
    with make_testbed() as testbed, ExitStack() as stack:
        asyncio.run(execute(testbed.database.url, "CREATE DATABASE upgraded"))
        url = replace_database(testbed.database.url, "upgraded")
        settings = testbed.settings(database_url=url, trusted_proxies="127.0.0.1")
        _migrate(old, testbed, settings)
        ports = [free_port(), free_port()]

        def start(command: Sequence[str], port: int) -> Service:
            folder = testbed.folder / f"api-{port}"
            service = running_service(folder, *DRAIN, port=port, command=command, **settings)
            return stack.enter_context(service)

        services = [start(old, port) for port in ports]
        site = stack.enter_context(run_nginx(testbed.folder / "nginx", ports))
        old_worker = stack.enter_context(testbed.worker(old, database_url=url))

        def replace_service(number: int) -> None:
            services[number].stop()
            start(COMMAND, ports[number])

        def replace_worker() -> None:
            old_worker.terminate()
            old_worker.wait(STOP_SECONDS)

        steps: dict[str, Callable[[], object]] = {
            "migrate": partial(_migrate, COMMAND, testbed, settings),
            "add a worker": lambda: stack.enter_context(testbed.worker(database_url=url)),
            "replace an API process": partial(replace_service, 0),
            "replace the other one": partial(replace_service, 1),
            "stop the old worker": replace_worker,
        }
        asyncio.run(_upgrade(report, testbed, site, url, steps, requests))
        report.record(log_lines_above_info=_log_lines(testbed.folder))
    return report


async def _upgrade(
    report: ScenarioReport,
    testbed: Testbed,
    site: str,
    url: str,
    steps: Mapping[str, Callable[[], object]],
    requests: int,
) -> None:
    async with run_workload(site, registering=0.05) as workload:
        for number, (name, step) in enumerate(steps.items(), 1):
            await _wait_for_requests(workload, requests * number // (len(steps) + 1))
            started = time.monotonic()
            await asyncio.to_thread(step)
            report.record(**{name: f"{time.monotonic() - started:.1f} s"})
        await _wait_for_requests(workload, requests)
    report.record(requests=count_statuses(workload.requests), accounts=len(workload.accounts))
    report.check(
        holds=all(request.status in SUCCESS for request in workload.requests),
        promise="every request succeeds",
    )
    connection = await asyncpg.connect(url)
    lost = await workload.count_lost_writes(connection)
    await connection.close()
    report.check(holds=lost == 0, promise="every acknowledged write is stored")
    await wait_for_value(partial(_is_zero, url, OPEN_JOBS), STEP_SECONDS)
    report.check(holds=await _is_zero(url, HELD_JOBS), promise="every job succeeds")
    unwelcome = [email for email in workload.accounts if not testbed.sink.mails_to(email)]
    report.check(holds=not unwelcome, promise="every new user gets the mail")


async def _wait_for_requests(workload: Workload, count: int) -> None:
    await wait_until(lambda: len(workload.requests) >= count, STEP_SECONDS)


async def _is_zero(url: str, query: str) -> bool:
    return await fetch_value(url, query) == 0


def _migrate(command: Sequence[str], testbed: Testbed, settings: Mapping[str, str]) -> None:
    variables = environment(testbed.folder / "operator", **settings)
    _run(*command, "migrate", env=variables)


def _log_lines(folder: Path) -> int:
    """Count the lines of the services' and workers' logs, which have warnings and errors only."""
    return sum(len(log.read_text().splitlines()) for log in folder.glob("*.log"))


def _run(*command: str, env: Mapping[str, str] | None = None) -> bytes:
    done = subprocess.run(command, check=False, capture_output=True, env=env)  # noqa: S603 - fixed
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
