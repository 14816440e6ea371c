"""pgqueuer's statements as the worker wants them: few of them, and mindful of workers that died."""

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
from referral.adapters.jobs.context import error_chain
from referral.adapters.jobs.queue import make_queries
from referral.adapters.postgres.outages import errors_as_unavailable
from referral.core.errors import Unavailable

JOB_BATCH_SIZE = 20
MAX_CONCURRENT_JOBS = 2 * JOB_BATCH_SIZE
"""How many jobs a worker takes at once, and does at once; pgqueuer wants at least twice."""

BATCH_LINGER_SECONDS = 0.02
"""How long a worker that has room for some jobs waits until it has room for a batch."""

MAX_CAPACITY_WAIT_SECONDS = 1.0

DEQUEUE_DELAY_PER_JOB_SECONDS, MAX_DEQUEUE_DELAY_SECONDS = 0.02, 0.1
"""How soon, for each job that a look took, and at the latest, it is followed by the next, unless
there may be more jobs: what is queued meanwhile shares its statements, which in a flood of
registrations cost more than the jobs do. Single jobs hardly wait.
"""

JOBS_OF_CRASHED_WORKERS = """
SELECT job_id FROM pgqueuer_log AS picked
WHERE job_id = ANY($1::bigint[]) AND status = 'picked' AND id > coalesce((
    SELECT max(id) FROM pgqueuer_log AS queued
    WHERE queued.job_id = picked.job_id AND queued.status = 'queued'
), 0)
GROUP BY job_id HAVING count(*) > 1
"""
"""Which jobs were taken before and neither finished nor given back: their worker died."""

JobOutcome = tuple[Job, JOB_STATUS, TracebackRecord | None]


class JobCapacity:
    """How many jobs the worker has, of as many as it may have.

    pgqueuer looks for jobs again as soon as it has taken some. When it finds none, since it has as
    many as it may, it sleeps for a tenth of a second, and all of them are done long before.
    """

    def __init__(self) -> None:
        """Have none."""
        self._jobs: set[int] = set()
        self._released = asyncio.Event()

    @property
    def free(self) -> int:
        """Return how many more it may have."""
        return MAX_CONCURRENT_JOBS - len(self._jobs)

    def acquire(self, jobs: Iterable[int]) -> None:
        """Take more; one that is taken again counts once."""
        self._jobs.update(jobs)

    def release(self, jobs: Iterable[int]) -> None:
        """Be done with some."""
        self._jobs.difference_update(jobs)
        self._released.set()

    async def wait(self) -> None:
        """Return when there is room for a batch, or for some jobs and it was waited a little."""
        await self._wait_for(JOB_BATCH_SIZE, BATCH_LINGER_SECONDS)
        await self._wait_for(1, MAX_CAPACITY_WAIT_SECONDS)

    async def _wait_for(self, free: int, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.free < free:
                    self._released.clear()
                    await self._released.wait()


class FilteringDriver(AsyncpgDriver):
    """The connection, which hears no more than it has to: that something was queued once for each
    look for jobs, and nothing of their end, which would have the worker look for new ones.

    What it heard twice would wait its turn, as looks are paced, and more would than turns come.
    """

    is_insert_pending = False
    """Whether something was queued since the last look for jobs began."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """Listen to all but that."""

        def filtered(payload: str | bytes | bytearray) -> None:
            operation = _operation(payload)
            if operation == "delete":
                return
            if operation == "insert":
                if self.is_insert_pending:
                    return
                self.is_insert_pending = True
            callback(payload)

        await super().add_listener(channel, filtered)


class TableEvent(msgspec.Struct):
    """What the trigger tells of a change; other events have no operation."""

    operation: str | None = None


def _operation(payload: str | bytes | bytearray) -> str | None:
    try:
        return msgspec.json.decode(payload, type=TableEvent).operation
    except msgspec.DecodeError:
        return None


class WorkerQueries(Queries):
    """pgqueuer's statements, which also note the jobs whose worker died."""

    quarantined: set[int]
    capacity: JobCapacity
    _listener: FilteringDriver
    _is_stopping: Callable[[], bool]
    _next_dequeue: float
    _finished: set[int]
    _completions: RequestCoalescer[Job, None]

    @classmethod
    def create(cls, driver: FilteringDriver, is_stopping: Callable[[], bool]) -> Self:
        """Make them for a connection of a worker, which tells when it takes no more jobs."""
        queries: Any = make_queries(driver, cls)
        made: Self = queries
        made._prepare(driver, is_stopping)
        return made

    def _prepare(self, driver: FilteringDriver, is_stopping: Callable[[], bool]) -> None:
        self._listener, self._is_stopping = driver, is_stopping
        self.quarantined, self.capacity, self._next_dequeue = set(), JobCapacity(), 0.0
        self._finished, self._completions = set(), RequestCoalescer(self._finish_batch)

    async def dequeue(self, *args: Any, **options: Any) -> list[Job]:  # noqa: ANN401
        """Take jobs once there is room, and look up which of them were taken before."""
        await self.capacity.wait()
        now = asyncio.get_running_loop().time
        await asyncio.sleep(self._next_dequeue - now())
        if self._is_stopping():
            return []
        wanted = min(JOB_BATCH_SIZE, self.capacity.free)
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
        """Delete a job that is done: at once, together with those that end meanwhile.

        pgqueuer would wait for more of them, and a kill meanwhile would have them done again.
        """
        await self._completions.submit(job)

    async def log_jobs(self, job_status: list[JobOutcome]) -> None:
        """Note how jobs ended, but for those that were deleted already."""
        ids = {job.id for job, _, _ in job_status}
        left = [one for one in job_status if one[0].id not in self._finished]
        if left:
            await super().log_jobs(left)
        self._finished -= ids
        self.capacity.release(ids)

    async def retry_job(
        self, job: Job, delay: timedelta, traceback_record: TracebackRecord | None
    ) -> None:
        """Put a job back. Where the database cannot now it is left, and taken up again when its
        heartbeat is over: pgqueuer would hold it, as if it had failed for good.
        """
        try:
            with errors_as_unavailable():
                await super().retry_job(job, delay, traceback_record)
        except Unavailable as error:
            log = structlog.get_logger()
            log.warning("job not put back, and taken up later", cause=error_chain(error))

    async def _finish_batch(self, jobs: list[Job]) -> list[None]:
        await super().log_jobs([(job, "successful", None) for job in jobs])
        self._finished |= {job.id for job in jobs}
        return [None] * len(jobs)
