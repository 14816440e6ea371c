"""pgqueuer's statements for the worker, with flow control and a quarantine of suspicious jobs."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

import msgspec
import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.models import Job, TracebackRecord
from pgqueuer.domain.types import JOB_STATUS

from referral.adapters.batching import RequestCoalescer
from referral.adapters.jobs.propagation import error_chain
from referral.adapters.jobs.queue import make_queries
from referral.adapters.postgres.errors import errors_as_unavailable
from referral.core.errors import Unavailable

BATCHES_AT_ONCE = 2
"""Batches of jobs that a worker runs at once; pgqueuer requires at least two."""

BATCH_LINGER_SECONDS = 0.02
"""Time that a worker with capacity for a few jobs waits for the capacity of a whole batch."""

MAX_CAPACITY_WAIT_SECONDS = 1.0
"""Time that a worker without capacity waits for a job to end."""

DEQUEUE_DELAY_PER_JOB_SECONDS, MAX_DEQUEUE_DELAY_SECONDS = 0.02, 0.1
"""Delay before the next dequeue for each job of the last one, and its maximum.

The jobs that are queued meanwhile share a dequeue: in a flood of registrations the statements cost
more than the jobs. A single job hardly waits. No delay follows a full batch.
"""

JOBS_OF_CRASHED_WORKERS = """
SELECT job_id FROM pgqueuer_log AS picked
WHERE job_id = ANY($1::bigint[]) AND status = 'picked' AND id > coalesce((
    SELECT max(id) FROM pgqueuer_log AS queued
    WHERE queued.job_id = picked.job_id AND queued.status = 'queued'
), 0)
GROUP BY job_id HAVING count(*) > 1
"""
"""Jobs that were picked twice without a return to the queue: the first worker crashed."""

JobOutcome = tuple[Job, JOB_STATUS, TracebackRecord | None]


class JobCapacity:
    """A limit of the jobs that a worker holds: two batches.

    pgqueuer dequeues again as soon as it has taken jobs. At its own limit it sleeps for 0.1 s,
    which is longer than the jobs take.
    """

    def __init__(self, batch_size: int) -> None:
        """Start without jobs."""
        self.batch_size = batch_size
        self._jobs: set[int] = set()
        self._released = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more jobs the worker may take."""
        return BATCHES_AT_ONCE * self.batch_size - len(self._jobs)

    def acquire(self, jobs: Iterable[int]) -> None:
        """Add jobs by their ids; a job that is added twice counts once."""
        self._jobs.update(jobs)

    def release(self, jobs: Iterable[int]) -> None:
        """Remove jobs that have ended."""
        self._jobs.difference_update(jobs)
        self._released.set()

    async def wait(self) -> None:
        """Wait for the capacity of a batch; after a short time a smaller capacity is enough."""
        await self._wait_for(self.batch_size, BATCH_LINGER_SECONDS)
        await self._wait_for(1, MAX_CAPACITY_WAIT_SECONDS)

    async def _wait_for(self, free: int, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.free < free:
                    self._released.clear()
                    await self._released.wait()


class FilteringDriver(AsyncpgDriver):
    """A connection that passes on only the notifications that must start a dequeue.

    pgqueuer starts a dequeue for each notification of its trigger. Dequeues are delayed, so the
    notifications would accumulate. The driver drops deletions, and all inserts after the first
    one until the next dequeue, because that dequeue fetches the inserted jobs together.
    """

    is_insert_pending = False
    """Whether a job was inserted since the last dequeue began."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """Listen, and pass on the notifications that must start a dequeue."""

        def filtered(payload: str | bytes | bytearray) -> None:
            operation = _operation(payload)
            if operation == "delete" or (operation == "insert" and self.is_insert_pending):
                return
            self.is_insert_pending = self.is_insert_pending or operation == "insert"
            callback(payload)

        await super().add_listener(channel, filtered)


class TableEvent(msgspec.Struct):
    """The notification of pgqueuer's trigger; other events have no operation."""

    operation: str | None = None


def _operation(payload: str | bytes | bytearray) -> str | None:
    try:
        return msgspec.json.decode(payload, type=TableEvent).operation
    except msgspec.DecodeError:
        return None


class WorkerQueries(Queries):
    """pgqueuer's statements, with flow control and the quarantine of jobs of crashed workers."""

    quarantined: set[int]
    capacity: JobCapacity
    _listener: FilteringDriver
    _is_stopping: Callable[[], bool]
    _next_dequeue: float
    _finished: set[int]
    _completions: RequestCoalescer[Job, None]

    @classmethod
    def create(
        cls, driver: FilteringDriver, is_stopping: Callable[[], bool], batch_size: int
    ) -> Self:
        """Make the queries of a worker's connection; no job is taken while `is_stopping()`."""
        queries: Any = make_queries(driver, cls)
        created: Self = queries
        created._prepare(driver, is_stopping, batch_size)
        return created

    def _prepare(
        self, driver: FilteringDriver, is_stopping: Callable[[], bool], batch_size: int
    ) -> None:
        self._listener, self._is_stopping = driver, is_stopping
        self.quarantined, self.capacity, self._next_dequeue = set(), JobCapacity(batch_size), 0.0
        self._finished, self._completions = set(), RequestCoalescer(self._finish_batch)

    async def dequeue(self, *args: Any, **options: Any) -> list[Job]:  # noqa: ANN401
        """Take jobs when there is capacity, and quarantine the jobs of crashed workers."""
        await self.capacity.wait()
        now = asyncio.get_running_loop().time
        await asyncio.sleep(self._next_dequeue - now())
        if self._is_stopping():
            return []
        wanted = min(self.capacity.batch_size, self.capacity.free)
        self._listener.is_insert_pending = False
        jobs = await super().dequeue(*args, **options)
        delay = min(DEQUEUE_DELAY_PER_JOB_SECONDS * len(jobs), MAX_DEQUEUE_DELAY_SECONDS)
        self._next_dequeue = now() + (delay if len(jobs) < wanted else 0)
        if jobs:
            ids = [job.id for job in jobs]
            self.capacity.acquire(ids)
            rows = await self.driver.fetch(JOBS_OF_CRASHED_WORKERS, ids)
            self.quarantined |= {int(str(row["job_id"])) for row in rows}
        return jobs

    async def finish(self, job: Job) -> None:
        """Delete a finished job at once; jobs that finish meanwhile share the next statement.

        pgqueuer would wait for more jobs, and after a kill in that time it would run them again.
        """
        await self._completions.submit(job)

    async def log_jobs(self, job_status: list[JobOutcome]) -> None:
        """Store the outcomes of jobs, except of those that `finish` has deleted."""
        ids = {job.id for job, _, _ in job_status}
        remaining = [outcome for outcome in job_status if outcome[0].id not in self._finished]
        if remaining:
            await super().log_jobs(remaining)
        self._finished -= ids
        self.capacity.release(ids)

    async def retry_job(
        self, job: Job, delay: timedelta, traceback_record: TracebackRecord | None
    ) -> None:
        """Return a job to the queue.

        While the database is unavailable the job stays picked, and is taken again after its
        heartbeat timeout: pgqueuer would hold it, as after its last attempt.
        """
        try:
            with errors_as_unavailable():
                await super().retry_job(job, delay, traceback_record)
        except Unavailable as error:
            structlog.get_logger().warning(
                "job not returned to the queue; it is retried after its heartbeat timeout",
                cause=error_chain(error),
            )

    async def _finish_batch(self, jobs: list[Job]) -> list[None]:
        await super().log_jobs([(job, "successful", None) for job in jobs])
        self._finished |= {job.id for job in jobs}
        return [None] * len(jobs)
