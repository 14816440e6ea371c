"""Jobs for the tests, and waits for the state of the queue."""

from uuid import uuid4

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.jobs import Job, WelcomeMailJob
from tests.support.waiting import wait_for_value


async def enqueue(database: PostgresDatabase, *jobs: Job) -> None:
    """Enqueue jobs in one transaction."""
    async with database.begin() as repositories:
        await repositories.jobs.enqueue(*jobs)


def make_jobs(number: int) -> list[WelcomeMailJob]:
    """Make jobs for different users."""
    return [WelcomeMailJob(uuid4()) for _ in range(number)]


async def is_empty(job_admin: JobAdmin) -> bool:
    """Tell whether the queue holds no job of any status."""
    return sum(s.waiting + s.running + s.held for s in await job_admin.stats()) == 0


async def wait_until_empty(job_admin: JobAdmin, seconds: float = 120) -> None:
    """Wait until the queue is empty."""
    await wait_for_value(lambda: is_empty(job_admin), seconds)


async def wait_until_held(job_admin: JobAdmin, seconds: float = 120) -> int:
    """Wait until a job is held; return its id."""
    held = await wait_for_value(lambda: job_admin.list_jobs("held", 9), seconds)
    return held[0].id


async def wait_until_retried(job_admin: JobAdmin) -> None:
    """Wait until a job was requeued after an attempt."""

    async def was_retried() -> bool:
        return any(job.attempts for job in await job_admin.list_jobs("waiting", 9))

    await wait_for_value(was_retried)


async def wait_until_only_held(job_admin: JobAdmin) -> None:
    """Wait until no job waits or runs."""

    async def none_waits_or_runs() -> bool:
        return not sum(s.waiting + s.running for s in await job_admin.stats())

    await wait_for_value(none_waits_or_runs)
