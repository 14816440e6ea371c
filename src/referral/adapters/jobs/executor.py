"""The execution of one job: timeout, retries, and quarantine of jobs that crash the worker."""

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

from referral.adapters.jobs.propagation import error_chain, observed_attempt
from referral.adapters.jobs.queue import decode_job
from referral.adapters.jobs.worker_queries import WorkerQueries
from referral.adapters.postgres.errors import errors_as_unavailable
from referral.core.entities.jobs import JobContext
from referral.core.errors import MailRefused, RescheduleJob, Unavailable
from referral.core.ports.system import JobHandler

SHUTDOWN_GRACE_SECONDS = 5.0
"""Time limit of running attempts after a worker begins to shut down."""

INITIAL_BACKOFF = timedelta(seconds=2)
MAX_BACKOFF = timedelta(minutes=10)
MAX_FAILURES = 60
"""Failures before a job is held, about seven hours; reschedules and shutdowns do not count."""

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
    """The worker crashed three times in a row while it ran this job."""


class SharedExclusiveLock:
    """A lock with many shared holders or one exclusive holder.

    A quarantined job runs with the lock to itself, so that a crash is certainly its own.
    """

    def __init__(self) -> None:
        """Start without holders."""
        self._turnstile = asyncio.Lock()
        self._empty = asyncio.Event()
        self._empty.set()
        self._holders = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Share the lock, after its exclusive holder and the callers that wait to be one."""
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
        """Wait until the other holders have left, and hold the lock exclusively."""
        async with self._turnstile:
            await self._empty.wait()
            yield


@dataclass
class JobRunner:
    """Runs jobs: the state that the executors of a worker's job types share.

    `timeout_seconds` is the time limit of one attempt.
    """

    handler: JobHandler
    timeout_seconds: float
    quarantine: bool = True
    _lock: SharedExclusiveLock = field(default_factory=SharedExclusiveLock)
    _timeouts: set[asyncio.Timeout] = field(default_factory=set)
    _shutdown_deadline: float | None = None

    def executor(
        self, parameters: EntrypointExecutorParameters, queries: WorkerQueries
    ) -> "JobExecutor":
        """Make the executor of one job type."""
        return JobExecutor(parameters, self, queries)

    def begin_shutdown(self) -> None:
        """Shorten the time limit of the running attempts to the grace period."""
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
        """Run a job within its time limit, a quarantined job with no other beside it.

        The end of the job is stored before the lock is released: the next job may crash the worker.
        """
        is_quarantined = self.quarantine and job.id in queries.quarantined
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
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds
        deadline = min(deadline, self._shutdown_deadline or deadline)
        async with asyncio.timeout_at(deadline) as timeout:
            self._timeouts.add(timeout)
            try:
                yield
            finally:
                self._timeouts.discard(timeout)


@dataclass
class JobExecutor(AbstractEntrypointExecutor):
    """Reports the outcome of an attempt to pgqueuer: done, retried or held."""

    parameters: EntrypointExecutorParameters
    runner: JobRunner
    queries: WorkerQueries

    async def execute(self, job: Job, context: Context) -> None:
        """Run the job; raises `RetryRequested` for a retry, any other error to hold the job."""
        with observed_attempt(job):
            try:
                await self._execute(job, context)
            finally:
                self.queries.capacity.release((job.id,))

    async def _execute(self, job: Job, context: Context) -> None:
        try:
            await self.runner.run(job, self.queries)
        except asyncio.CancelledError:
            # pgqueuer deletes a job whose executor raises CancelledError.
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
        """Count the attempt and return the next retry, or None after the last attempt."""
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
        """Increment a counter, if any, and release the job from quarantine: the worker survived."""
        counters = counters_of(job)
        if counter is not None:
            counters[counter] = counters.get(counter, 0) + 1
        stored = (job.headers or {}).get(COUNTERS_HEADER, {})
        if counters != stored or job.id in self.queries.quarantined:
            self.queries.quarantined.discard(job.id)
            with suppress(Unavailable), errors_as_unavailable():
                await self.queries.driver.execute(SAVE_COUNTERS, job.id, json.dumps(counters))
        return counters[counter] if counter is not None else 0


def job_uuid(job: Job) -> UUID:
    """Return an id that is the same for all attempts at a job, and unique across databases."""
    return uuid5(NAMESPACE_URL, f"referral:job:{job.id}:{job.created.timestamp()}")


def counters_of(job: Job) -> dict[str, int]:
    """Return the counters of the earlier attempts, empty for a job that an operator retried."""
    stored = (job.headers or {}).get(COUNTERS_HEADER, {})
    return dict(cast("dict[str, int]", stored)) if job.attempts else {}


def backoff(failures: int) -> timedelta:
    """Return the delay after so many earlier failures: exponential, with jitter of 50 to 100 %."""
    longest = min(INITIAL_BACKOFF * int(2 ** min(failures, 20)), MAX_BACKOFF)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def _finish(job: Job, queries: WorkerQueries) -> None:
    try:
        await queries.finish(job)
    except Exception as error:  # noqa: BLE001 - the job is done; pgqueuer stores its end later
        structlog.get_logger().warning("end of a job stored late", cause=error_chain(error))
    queries.quarantined.discard(job.id)


async def _count_exclusive_attempt(job: Job, queries: WorkerQueries) -> None:
    """Count the attempts in quarantine, which begins after the first crash."""
    rows = await queries.driver.fetch(COUNT_EXCLUSIVE_ATTEMPT, job.id)
    if rows and int(str(rows[0]["alone"])) >= MAX_CRASHES:
        raise WorkerCrashed("The worker crashed three times in a row while it ran this job.")
