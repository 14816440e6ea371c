"""Tasks that run again and again: pauses, failures and shutdown."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
from structlog.testing import capture_logs

from referral.adapters.jobs.periodic_tasks import PeriodicTask, PeriodicTaskRunner
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until

ERROR = KeyError("a bug")


@asynccontextmanager
async def running(step: Callable[[int], bool], *, idle: float = 0.001) -> AsyncIterator[list[int]]:
    """Run a task until the block ends; yield the numbers of its runs, which grow."""
    numbers, runs = count(), list[int]()

    async def run() -> bool:
        runs.append(next(numbers))
        return step(runs[-1])

    runner = PeriodicTaskRunner(PeriodicTask("a task", run, interval=0.001, idle_interval=idle))
    task = asyncio.create_task(runner.run())
    yield runs
    runner.stop()
    await task


async def test_task_runs_until_it_is_stopped() -> None:
    """A long pause does not delay the shutdown."""
    async with running(lambda _: True) as runs:
        await wait_until(lambda: len(runs) > 3)
    async with running(lambda _: False, idle=9999) as runs:
        await wait_until(lambda: len(runs) > 3)


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unavailable(), "periodic task has no database"), (ERROR, "periodic task failed")],
)
async def test_failing_task_goes_on(error: Exception, event: str) -> None:
    """An outage is one line in the log, and its end another one; a bug is logged each time."""

    def fail_twice(number: int) -> bool:
        if number in {1, 2}:
            raise error
        return True

    with capture_logs() as logs:
        async with running(fail_twice) as runs:
            await wait_until(lambda: len(runs) > 5)
    lines = [line["event"] for line in logs]
    assert lines == [event] * (2 if error is ERROR else 1) + ["periodic task works again"]
    assert {line["task"] for line in logs} == {"a task"}
