"""Tasks that run again and again beside the jobs, in every process that runs jobs.

They replace no jobs: a task looks for work that has no job, such as an event to publish.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from referral.adapters.jobs.propagation import error_chain
from referral.core.errors import Unavailable

IDLE_BACKOFF = 1.1
"""Factor by which the interval grows while there is no work."""


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """A task, and the seconds between two runs while there is work, and after a long time without.

    `run` returns whether there was work.
    """

    name: str
    run: Callable[[], Awaitable[bool]]
    interval: float
    idle_interval: float


class PeriodicTaskRunner:
    """Runs each task in a loop until it is stopped."""

    def __init__(self, *tasks: PeriodicTask) -> None:
        """Take the tasks."""
        self._tasks = tasks
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Run the tasks until `stop` is called."""
        await asyncio.gather(*(self._repeat(task) for task in self._tasks))

    def stop(self) -> None:
        """Begin no more runs."""
        self._stopping.set()

    async def _repeat(self, task: PeriodicTask) -> None:
        log = structlog.get_logger().bind(task=task.name)
        pause, is_failing = task.interval, False
        while not self._stopping.is_set():
            try:
                has_worked = await task.run()
            except Unavailable as error:
                # One line for an outage; metrics and other logs tell how long it takes.
                if not is_failing:
                    log.warning("periodic task has no database", cause=error_chain(error))
                is_failing, pause = True, task.idle_interval
            except Exception:
                log.exception("periodic task failed")
                is_failing, pause = True, task.idle_interval
            else:
                if is_failing:
                    log.info("periodic task works again")
                is_failing = False
                grown = min(pause * IDLE_BACKOFF, task.idle_interval)
                pause = task.interval if has_worked else grown
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
