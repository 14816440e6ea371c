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

from referral.adapters.jobs.context import error_chain, observed_attempt
from referral.adapters.jobs.queue import decode_job
from referral.adapters.jobs.worker_queries import WorkerQueries
from referral.adapters.postgres.outages import errors_as_unavailable
from referral.core.entities.jobs import JobContext
from referral.core.errors import MailRefused, RescheduleJob, Unavailable
from referral.core.ports.system import JobHandler

JOB_TIMEOUT_SECONDS = 60.0
"""How long one attempt may take."""

SHUTDOWN_GRACE_SECONDS = 5.0
"""How long an attempt may still take once the worker is told to stop."""

INITIAL_BACKOFF = timedelta(seconds=2)
MAX_BACKOFF = timedelta(minutes=10)
MAX_FAILURES = 60
"""Some seven hours of failures before a job is held; waiting and stopped workers are none."""

MAX_CRASHES = 3

COUNT_EXCLUSIVE_ATTEMPT = """
UPDATE pgqueuer SET headers = jsonb_set(
    CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END,
    '{alone}', to_jsonb(coalesce((headers ->> 'alone')::int, 0) + 1)
) WHERE id = $1 RETURNING (headers ->> 'alone')::int AS alone
"""

COUNTERS_HEADER, FAILURE_COUNTER = "counters", "failures"

SAVE_COUNTERS = """
UPDATE pgqueuer SET headers = CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END
    - 'alone' || jsonb_build_object('counters', $2::jsonb)
WHERE id = $1
"""

RESET_COUNTERS = """
UPDATE pgqueuer SET headers = headers - 'alone' - 'counters'
WHERE id = ANY($1::bigint[]) AND jsonb_typeof(headers) = 'object'
"""


class WorkerCrashed(Exception):
    """The worker died in the midst of this job, three times in a row."""


class SharedExclusiveLock:
    """Lets many through together, or one alone: what kills the worker then is that one."""

    def __init__(self) -> None:
        """Let the first through."""
        self._turnstile = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._holders = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Go through, once nobody is alone or waits to be."""
        async with self._turnstile:
            self._holders += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._empty.set()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Go through, once all others are."""
        async with self._turnstile:
            await self._empty.wait()
            yield


@dataclass
class JobRunner:
    """What the executors of all kinds of jobs share."""

    handler: JobHandler
    _lock: SharedExclusiveLock = field(default_factory=SharedExclusiveLock)
    _timeouts: set[asyncio.Timeout] = field(default_factory=set)
    _shutdown_deadline: float | None = None

    def executor(
        self, parameters: EntrypointExecutorParameters, queries: WorkerQueries
    ) -> "JobExecutor":
        """Make the executor of one kind of job."""
        return JobExecutor(parameters, self, queries)

    def begin_shutdown(self) -> None:
        """Give the attempts that run a few more seconds."""
        self._shutdown_deadline = asyncio.get_running_loop().time() + SHUTDOWN_GRACE_SECONDS
        for timeout in self._timeouts:
            timeout.reschedule(
                min(self._shutdown_deadline, timeout.when() or self._shutdown_deadline)
            )

    @property
    def is_shutting_down(self) -> bool:
        """Whether the worker is about to stop."""
        return self._shutdown_deadline is not None

    async def run(self, job: Job, queries: WorkerQueries) -> None:
        """Do a job within its time; one whose worker died before, with no other beside it.

        Its end is noted before another begins, which may kill the worker.
        """
        is_quarantined = job.id in queries.quarantined
        async with self._lock.exclusive() if is_quarantined else self._lock.shared():
            async with self._timeout():
                if is_quarantined:
                    await _count_exclusive_attempt(job, queries)
                await self.handler(
                    decode_job(job.entrypoint, job.payload),
                    JobContext(job_uuid(job), job.attempts, counters_of(job)),
                )
            await _finish(job, queries)

    @asynccontextmanager
    async def _timeout(self) -> AsyncIterator[None]:
        deadline = asyncio.get_running_loop().time() + JOB_TIMEOUT_SECONDS
        async with asyncio.timeout_at(
            min(deadline, self._shutdown_deadline or deadline)
        ) as timeout:
            self._timeouts.add(timeout)
            try:
                yield
            finally:
                self._timeouts.discard(timeout)


@dataclass
class JobExecutor(AbstractEntrypointExecutor):
    """Tells pgqueuer how an attempt ended: done, to be tried again, or to be held."""

    parameters: EntrypointExecutorParameters
    runner: JobRunner
    queries: WorkerQueries

    async def execute(self, job: Job, context: Context) -> None:
        """Do the job, or raise what pgqueuer acts upon."""
        with observed_attempt(job):
            await self._do(job, context)

    async def _do(self, job: Job, context: Context) -> None:
        try:
            await self._execute(job, context)
        finally:
            self.queries.capacity.release((job.id,))

    async def _execute(self, job: Job, context: Context) -> None:
        try:
            await self.runner.run(job, self.queries)
        except asyncio.CancelledError:
            # Left alone, it would have pgqueuer delete the job.
            if context.cancellation.cancel_called:
                raise
            raise RetryRequested(timedelta(0), "the worker was cancelled") from None
        except (MailRefused, WorkerCrashed):
            raise
        except Exception as error:
            retry = await self._next_retry(job, error)
            if retry is None:
                raise
            raise retry from error

    async def _next_retry(self, job: Job, error: Exception) -> RetryRequested | None:
        """Count the attempt, and return when the next one is due, unless it was the last."""
        if isinstance(error, RescheduleJob):
            await self._count_attempt(job, error.counter)
            return RetryRequested(error.delay, str(error))
        if self.runner.is_shutting_down:
            await self._count_attempt(job, None)
            return RetryRequested(timedelta(0), "the worker was stopped")
        failures = await self._count_attempt(job, FAILURE_COUNTER)
        if failures >= MAX_FAILURES:
            return None
        return RetryRequested(backoff(failures - 1), type(error).__name__)

    async def _count_attempt(self, job: Job, counter: str | None) -> int:
        """Count the end of an attempt, by a counter or by none; its worker did not die of it."""
        counters = counters_of(job)
        if counter is not None:
            counters[counter] = counters.get(counter, 0) + 1
        if (
            counters != (job.headers or {}).get(COUNTERS_HEADER, {})
            or job.id in self.queries.quarantined
        ):
            self.queries.quarantined.discard(job.id)
            with suppress(Unavailable), errors_as_unavailable():
                await self.queries.driver.execute(SAVE_COUNTERS, job.id, json.dumps(counters))
        return counters[counter] if counter is not None else 0


def job_uuid(job: Job) -> UUID:
    """Return the id that all attempts at a job share, here and in no other database."""
    return uuid5(NAMESPACE_URL, f"referral:job:{job.id}:{job.created.timestamp()}")


def counters_of(job: Job) -> dict[str, int]:
    """Return what was counted in the attempts before; none are before one that was put back."""
    stored = (job.headers or {}).get(COUNTERS_HEADER, {})
    return dict(cast("dict[str, int]", stored)) if job.attempts else {}


def backoff(failures: int) -> timedelta:
    """Return how long to wait after a failure: twice as long after each one before it."""
    longest = min(INITIAL_BACKOFF * int(2 ** min(failures, 20)), MAX_BACKOFF)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def _finish(job: Job, queries: WorkerQueries) -> None:
    try:
        await queries.finish(job)
    except Exception as error:  # noqa: BLE001 - the job is done, and pgqueuer notes it a bit later
        structlog.get_logger().warning("end of a job noted late", cause=error_chain(error))
    queries.quarantined.discard(job.id)


async def _count_exclusive_attempt(job: Job, queries: WorkerQueries) -> None:
    """Count the attempts that a suspect had for itself; the crash before them was the first."""
    rows = await queries.driver.fetch(COUNT_EXCLUSIVE_ATTEMPT, job.id)
    if rows and int(str(rows[0]["alone"])) >= MAX_CRASHES:
        raise WorkerCrashed("The worker died three times in a row while it did this job.")
