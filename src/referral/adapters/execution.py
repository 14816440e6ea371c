"""How one job is done: its time, its retries, and what to do about one that kills the worker."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

from pgqueuer.core.executors import AbstractEntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Context, Job

from referral.adapters.postgres.jobs import decode
from referral.adapters.queries import WatchfulQueries
from referral.adapters.trail import following
from referral.core.errors import Later, MailRefused
from referral.core.jobs import Run
from referral.core.ports import JobDoer

JOB_SECONDS = 60.0
"""How long one attempt may take."""

GRACE_SECONDS = 5.0
"""How long an attempt may still take once the worker is told to stop."""

FIRST_WAIT = timedelta(seconds=2)
LONGEST_WAIT = timedelta(minutes=10)
MAX_ATTEMPTS = 60
"""Some seven hours of attempts before a job is held."""

MAX_CRASHES = 3

COUNT_ALONE = """
UPDATE pgqueuer SET headers = jsonb_set(
    CASE jsonb_typeof(headers) WHEN 'object' THEN headers ELSE '{}' END,
    '{alone}', to_jsonb(coalesce((headers ->> 'alone')::int, 0) + 1)
) WHERE id = $1 RETURNING (headers ->> 'alone')::int AS alone
"""

FORGET_ALONE = """
UPDATE pgqueuer SET headers = headers - 'alone'
WHERE id = ANY($1::bigint[]) AND jsonb_typeof(headers) = 'object'
"""


class WorkerCrashed(Exception):
    """The worker died in the midst of this job, three times in a row."""


class Gate:
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
class Execution:
    """What the executors of all kinds of jobs share."""

    do_job: JobDoer
    _gate: Gate = field(default_factory=Gate)
    _limits: set[asyncio.Timeout] = field(default_factory=set)
    _end: float | None = None

    def executor(
        self, parameters: EntrypointExecutorParameters, queries: WatchfulQueries
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

    async def attempt(self, job: Job, queries: WatchfulQueries) -> None:
        """Do a job within its time; one whose worker died before, with no other beside it.

        Its end is noted before another begins, which may kill the worker.
        """
        suspect = job.id in queries.suspects
        async with self._gate.alone() if suspect else self._gate.together():
            async with self._time():
                if suspect:
                    await _count_alone(job, queries)
                await self.do_job(
                    decode(job.entrypoint, job.payload), Run(id_of(job), job.attempts)
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
    execution: Execution
    queries: WatchfulQueries

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
            await self._forget_alone(job)
            raise self._again(job, error) from error

    def _again(self, job: Job, error: Exception) -> Exception:
        if isinstance(error, Later):
            return RetryRequested(error.wait, str(error))
        if self.execution.is_hurried:
            return RetryRequested(timedelta(0), "the worker was stopped")
        if job.attempts + 1 >= MAX_ATTEMPTS:
            return error
        return RetryRequested(backoff(job.attempts), type(error).__name__)

    async def _forget_alone(self, job: Job) -> None:
        if job.id in self.queries.suspects:
            self.queries.suspects.discard(job.id)
            with suppress(Exception):
                await self.queries.driver.execute(FORGET_ALONE, [job.id])


def id_of(job: Job) -> UUID:
    """Return the id that all attempts at a job share, here and in no other database."""
    return uuid5(NAMESPACE_URL, f"referral:job:{job.id}:{job.created.timestamp()}")


def backoff(attempts: int) -> timedelta:
    """Return how long to wait before the next attempt: twice as long each time, give or take."""
    longest = min(FIRST_WAIT * int(2 ** min(attempts, 20)), LONGEST_WAIT)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def _finish(job: Job, queries: WatchfulQueries) -> None:
    with suppress(Exception):
        await queries.finish(job)
    queries.suspects.discard(job.id)


async def _count_alone(job: Job, queries: WatchfulQueries) -> None:
    """Count the attempts that a suspect had for itself; the crash before them was the first."""
    rows = await queries.driver.fetch(COUNT_ALONE, job.id)
    if rows and int(str(rows[0]["alone"])) >= MAX_CRASHES:
        raise WorkerCrashed("The worker died three times in a row while it did this job.")
