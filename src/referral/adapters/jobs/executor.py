"""How one job is done: its time, its retries, and what to do about one that kills the worker."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
from pgqueuer.core.executors import AbstractEntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Context, Job

from referral.adapters.jobs.context import causes_of, following
from referral.adapters.jobs.queue import decode
from referral.adapters.jobs.worker_queries import WorkerQueries
from referral.adapters.postgres.outages import unavailable
from referral.core.entities.jobs import JobContext
from referral.core.errors import MailRefused, RescheduleJob, Unavailable
from referral.core.ports.system import JobHandler

JOB_SECONDS = 60.0
"""How long one attempt may take."""

GRACE_SECONDS = 5.0
"""How long an attempt may still take once the worker is told to stop."""

FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(minutes=10)
MAX_FAILURES = 60
"""Some seven hours of failures before a job is held; waiting and stopped workers are none."""

MAX_CRASHES = 3

COUNT_ALONE = """
UPDATE pgqueuer SET headers = jsonb_set(
    CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END,
    '{alone}', to_jsonb(coalesce((headers ->> 'alone')::int, 0) + 1)
) WHERE id = $1 RETURNING (headers ->> 'alone')::int AS alone
"""

COUNTERS, FAILURES = "counters", "failures"

KEEP_COUNTERS = """
UPDATE pgqueuer SET headers = CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END
    - 'alone' || jsonb_build_object('counters', $2::jsonb)
WHERE id = $1
"""

FORGET_COUNTERS = """
UPDATE pgqueuer SET headers = headers - 'alone' - 'counters'
WHERE id = ANY($1::bigint[]) AND jsonb_typeof(headers) = 'object'
"""


class WorkerCrashed(Exception):
    """The worker died in the midst of this job, three times in a row."""


class SharedExclusiveLock:
    """Lets many through together, or one alone: what kills the worker then is that one."""

    def __init__(self) -> None:
        """Let the first through."""
        self._turn = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._inside = 0

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Go through, once nobody is alone or waits to be."""
        async with self._turn:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Go through, once all others are."""
        async with self._turn:
            await self._empty.wait()
            yield


@dataclass
class JobRunner:
    """What the executors of all kinds of jobs share."""

    do_job: JobHandler
    _gate: SharedExclusiveLock = field(default_factory=SharedExclusiveLock)
    _limits: set[asyncio.Timeout] = field(default_factory=set)
    _end: float | None = None

    def executor(
        self, parameters: EntrypointExecutorParameters, queries: WorkerQueries
    ) -> "JobExecutor":
        """Make the executor of one kind of job."""
        return JobExecutor(parameters, self, queries)

    def hurry(self) -> None:
        """Give the attempts that run a few more seconds."""
        self._end = asyncio.get_running_loop().time() + GRACE_SECONDS
        for limit in self._limits:
            limit.reschedule(min(self._end, limit.when() or self._end))

    @property
    def is_hurried(self) -> bool:
        """Whether the worker is about to stop."""
        return self._end is not None

    async def attempt(self, job: Job, queries: WorkerQueries) -> None:
        """Do a job within its time; one whose worker died before, with no other beside it.

        Its end is noted before another begins, which may kill the worker.
        """
        suspect = job.id in queries.suspects
        async with self._gate.alone() if suspect else self._gate.together():
            async with self._time():
                if suspect:
                    await _count_alone(job, queries)
                await self.do_job(
                    decode(job.entrypoint, job.payload),
                    JobContext(id_of(job), job.attempts, counters_of(job)),
                )
            await _finish(job, queries)

    @asynccontextmanager
    async def _time(self) -> AsyncIterator[None]:
        end = asyncio.get_running_loop().time() + JOB_SECONDS
        async with asyncio.timeout_at(min(end, self._end or end)) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)


@dataclass
class JobExecutor(AbstractEntrypointExecutor):
    """Tells pgqueuer how an attempt ended: done, to be tried again, or to be held."""

    parameters: EntrypointExecutorParameters
    execution: JobRunner
    queries: WorkerQueries

    async def execute(self, job: Job, context: Context) -> None:
        """Do the job, or raise what pgqueuer acts upon."""
        with following(job):
            await self._do(job, context)

    async def _do(self, job: Job, context: Context) -> None:
        try:
            await self._execute(job, context)
        finally:
            self.queries.room.leave((job.id,))

    async def _execute(self, job: Job, context: Context) -> None:
        try:
            await self.execution.attempt(job, self.queries)
        except asyncio.CancelledError:
            # Left alone, it would have pgqueuer delete the job.
            if context.cancellation.cancel_called:
                raise
            raise RetryRequested(timedelta(0), "the worker was cancelled") from None
        except (MailRefused, WorkerCrashed):
            raise
        except Exception as error:
            retry = await self._retry(job, error)
            if retry is None:
                raise
            raise retry from error

    async def _retry(self, job: Job, error: Exception) -> RetryRequested | None:
        """Count the attempt, and return when the next one is due, unless it was the last."""
        if isinstance(error, RescheduleJob):
            await self._count(job, error.counter)
            return RetryRequested(error.wait, str(error))
        if self.execution.is_hurried:
            await self._count(job, None)
            return RetryRequested(timedelta(0), "the worker was stopped")
        failures = await self._count(job, FAILURES)
        if failures >= MAX_FAILURES:
            return None
        return RetryRequested(backoff(failures - 1), type(error).__name__)

    async def _count(self, job: Job, counter: str | None) -> int:
        """Count the end of an attempt, by a counter or by none; its worker did not die of it."""
        counters = counters_of(job)
        if counter is not None:
            counters[counter] = counters.get(counter, 0) + 1
        if counters != (job.headers or {}).get(COUNTERS, {}) or job.id in self.queries.suspects:
            self.queries.suspects.discard(job.id)
            with suppress(Unavailable), unavailable():
                await self.queries.driver.execute(KEEP_COUNTERS, job.id, json.dumps(counters))
        return counters[counter] if counter is not None else 0


def id_of(job: Job) -> UUID:
    """Return the id that all attempts at a job share, here and in no other database."""
    return uuid5(NAMESPACE_URL, f"referral:job:{job.id}:{job.created.timestamp()}")


def counters_of(job: Job) -> dict[str, int]:
    """Return what was counted in the attempts before; none are before one that was put back."""
    kept = (job.headers or {}).get(COUNTERS, {})
    return dict(cast("dict[str, int]", kept)) if job.attempts else {}


def backoff(failures: int) -> timedelta:
    """Return how long to wait after a failure: twice as long after each one before it."""
    longest = min(FIRST_WAIT * int(2 ** min(failures, 20)), LONGEST_WAIT)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def _finish(job: Job, queries: WorkerQueries) -> None:
    try:
        await queries.finish(job)
    except Exception as error:  # noqa: BLE001 - the job is done, and pgqueuer notes it a bit later
        structlog.get_logger().warning("end of a job noted late", cause=causes_of(error))
    queries.suspects.discard(job.id)


async def _count_alone(job: Job, queries: WorkerQueries) -> None:
    """Count the attempts that a suspect had for itself; the crash before them was the first."""
    rows = await queries.driver.fetch(COUNT_ALONE, job.id)
    if rows and int(str(rows[0]["alone"])) >= MAX_CRASHES:
        raise WorkerCrashed("The worker died three times in a row while it did this job.")
