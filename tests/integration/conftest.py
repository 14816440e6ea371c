"""The operator's view of the jobs, a worker, and the tests that are left out."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.worker import JobWorker
from referral.core.entities.jobs import Job, JobContext
from referral.settings import Settings
from tests.conftest import execute
from tests.support.service_process import run_command
from tests.support.statistics_check import check_statistics

IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = "test_os_users.py"
"""It runs commands as another user; `.ci/run` runs as root."""

collect_ignore = [] if IS_ROOT else [NEEDS_ROOT]

Run = Callable[..., subprocess.CompletedProcess[str]]
RunJson = Callable[..., Any]

LEAP_DAY = "0 0 29 2 *"
"""A schedule for pruning that never fires during a test."""

HandleJob = Callable[[Job, JobContext], Coroutine[Any, Any, None]]


def pytest_report_collectionfinish() -> list[str]:
    """Report the tests that are left out."""
    return [] if IS_ROOT else [f"not root: tests/integration/{NEEDS_ROOT} is left out"]


class StartWorker(Protocol):
    """Run a worker with the test's job handler until the block ends."""

    def __call__(
        self, handle: HandleJob, **options: Any
    ) -> AbstractAsyncContextManager[JobWorker]: ...


@pytest.fixture
async def job_admin(database_url: str) -> JobAdmin:
    """The operator's view; the queue is empty at first."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return JobAdmin(database_url)


@pytest.fixture
def start_worker(database_url: str) -> StartWorker:
    """Run a worker with the test's job handler until the block ends."""

    @asynccontextmanager
    async def start(handle: HandleJob, **options: Any) -> AsyncIterator[JobWorker]:
        worker = JobWorker(database_url, handle, **{"prune_schedule": LEAP_DAY} | options)
        task = asyncio.create_task(worker.run())
        yield worker
        worker.stop()
        await task

    return start


@pytest.fixture(scope="module")
async def statistics_agree(database_url: str) -> AsyncIterator[None]:
    """After all tests of the module, statistics agree with the rows."""
    yield
    await check_statistics(database_url)


@pytest.fixture
def run(settings: Settings, tmp_path: Path) -> Run:
    """Run a command on the test's database."""
    values = {
        "database_url": settings.database_url or "",
        "signing_key_file": settings.signing_key_file,
        "log_level": "error",
    }

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *arguments, stdin=stdin, **values)

    return run


@pytest.fixture
def run_json(run: Run) -> RunJson:
    """Run a command with `--json`, and return the document that is its whole output."""

    def run_json(*arguments: str, stdin: str | None = None) -> Any:
        result = run(*arguments, "--json", stdin=stdin)
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run_json
