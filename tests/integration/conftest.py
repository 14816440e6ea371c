"""The operator's view of the jobs, a worker, and the tests that are left out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.worker import JobWorker
from referral.core.entities.jobs import Job, JobContext
from tests.conftest import execute

IS_ROOT = os.geteuid() == 0
NEEDS_ROOT = "test_os_users.py"
"""It runs commands as another user; `.ci/run` runs as root."""

collect_ignore = [] if IS_ROOT else [NEEDS_ROOT]

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
