"""The job queue: enqueueing, notifications, duplicates, periodic jobs and pruning.

See docs/decisions/0010-pgqueuer.md.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from pgqueuer.ports.repository import EntrypointExecutionParameter

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.queue import PGQUEUER_NAMES
from referral.adapters.jobs.worker import MAIN_WORKER
from referral.adapters.jobs.worker_queries import BATCHES_AT_ONCE, FilteringDriver, WorkerQueries
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.jobs import Job, JobContext, PruneJob, WelcomeMailJob
from tests.conftest import execute
from tests.integration.conftest import StartWorker
from tests.integration.job_queue import (
    enqueue,
    is_empty,
    make_jobs,
    wait_until_empty,
)
from tests.support.waiting import wait_until


async def test_job_is_enqueued_with_its_transaction(
    database: PostgresDatabase, job_admin: JobAdmin
) -> None:
    """A rollback leaves no job, even if enqueueing was its first statement."""
    with suppress(ZeroDivisionError):
        async with database.begin() as repositories:
            await repositories.jobs.enqueue(*make_jobs(1))
            raise ZeroDivisionError
    assert await is_empty(job_admin)
    await enqueue(database, *make_jobs(2))
    assert len(await job_admin.list_jobs("waiting", 9)) == 2


async def test_several_workers_run_each_job_once(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """Three workers run 200 jobs once each."""
    done: Counter[UUID] = Counter()

    async def handle(job: Job, _: JobContext) -> None:
        assert isinstance(job, WelcomeMailJob)
        done[job.user_id] += 1

    jobs = make_jobs(200)
    async with start_worker(handle), start_worker(handle), start_worker(handle):
        await enqueue(database, *jobs)
        await wait_until_empty(job_admin)
    assert done == Counter(job.user_id for job in jobs)


async def test_one_notification_is_delivered_per_poll(
    database: PostgresDatabase, database_url: str
) -> None:
    """Polls are paced, so further notifications would pile up."""
    connection = await asyncpg.connect(database_url)
    driver = FilteringDriver(connection)
    batch_size, received = MAIN_WORKER.batch_size, list[str]()
    statements = WorkerQueries.create(driver, lambda: False, batch_size)
    await driver.add_listener(
        PGQUEUER_NAMES["channel"], lambda payload: received.append(str(payload))
    )

    async def enqueue_and_wait(*jobs: Job) -> None:
        for job in jobs:
            await enqueue(database, job)
        # Notifications arrive in the order in which they were sent.
        await connection.execute("SELECT pg_notify($1, 'last')", PGQUEUER_NAMES["channel"])
        await wait_until(lambda: "last" in received)
        received.remove("last")

    async def poll() -> None:
        kinds: Any = {"welcome-mail": EntrypointExecutionParameter(0)}
        await statements.dequeue(
            batch_size, kinds, uuid4(), BATCHES_AT_ONCE * batch_size, timedelta(seconds=6)
        )

    try:
        await enqueue_and_wait(*make_jobs(5))
        assert len(received) == 1
        await poll()
        await enqueue_and_wait(*make_jobs(5))
        assert len(received) == 2
    finally:
        await connection.close()


async def test_notification_filter_parses_the_json(database_url: str) -> None:
    """The filter drops job deletions only, whatever the spacing and the other fields."""
    connection = await asyncpg.connect(database_url)
    received: list[str] = []
    driver = FilteringDriver(connection)
    await driver.add_listener("here", lambda payload: received.append(str(payload)))
    mentions = json.dumps({"type": "other", "about": '"operation" : "delete"'})
    sent = ['{"operation":"delete"}', '{"operation":"insert"}', '{ "operation": "insert" }']
    try:
        for payload in (*sent, mentions, "no JSON", "[]"):
            await connection.execute("SELECT pg_notify('here', $1)", payload)
        await wait_until(lambda: "[]" in received)
    finally:
        await connection.close()
    assert received == [sent[1], mentions, "no JSON", "[]"]


async def test_duplicate_singleton_job_is_skipped(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """A duplicate of a waiting or running job is skipped without failing the transaction."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def handle(_: Job, __: JobContext) -> None:
        started.set()
        await gate.wait()

    await enqueue(database, PruneJob(), PruneJob())
    assert len(await job_admin.list_jobs("waiting", 9)) == 1
    async with start_worker(handle):
        await started.wait()
        await enqueue(database, PruneJob())
        assert await job_admin.list_jobs("waiting", 9) == []
        gate.set()
        await wait_until_empty(job_admin)


async def test_periodic_job_fires_once_for_all_workers(
    database_url: str, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """Three workers enqueue one job per period; it is retried like any other."""
    failures: list[JobContext] = []
    done: list[JobContext] = []

    async def handle(job: Job, context: JobContext) -> None:
        assert job == PruneJob()
        if not failures:
            failures.append(context)
            raise OSError
        done.append(context)

    every_second = {"prune_schedule": "* * * * * *"}
    connection = await asyncpg.connect(database_url)
    began = await connection.fetchval("SELECT now()")
    async with (
        start_worker(handle, **every_second),
        start_worker(handle, **every_second),
        start_worker(handle, **every_second),
    ):
        await wait_until(lambda: len(done) >= 5, 120)
    seconds, fired = await connection.fetchrow(
        "SELECT extract(epoch FROM now() - $1::timestamptz), count(*) FROM pgqueuer_log "
        "WHERE entrypoint = 'pruning' AND status = 'queued' AND traceback IS NULL",
        began,
    )
    await connection.close()
    assert job_admin.url == database_url
    assert done[0].id == failures[0].id
    assert 5 <= fired <= seconds + 1


async def test_log_is_pruned(
    database: PostgresDatabase, job_admin: JobAdmin, database_url: str
) -> None:
    """Old log rows are deleted, newer ones stay."""
    await enqueue(database, *make_jobs(2))
    await execute(database_url, "UPDATE pgqueuer_log SET created = now() - interval '9 days' "
                                "WHERE id = (SELECT min(id) FROM pgqueuer_log)")  # fmt: skip
    async with database.begin() as repositories:
        assert not await repositories.jobs.prune(datetime.now(UTC) - timedelta(days=7))
    connection = await asyncpg.connect(job_admin.url)
    assert await connection.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
    await connection.close()


def test_environment_does_not_change_table_names() -> None:
    """Variables as common as CHANNEL, which pgqueuer reads, have no effect."""
    program = (
        "from referral.adapters.jobs.queue import PGQUEUER_SETTINGS as settings\n"
        "print(settings.channel, settings.trigger)"
    )
    variables = {"CHANNEL": "other", "TRIGGER": "other", "PGQUEUER_PREFIX": "other"}
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, check=True
    )
    assert result.stdout.decode().split() == [PGQUEUER_NAMES["channel"], PGQUEUER_NAMES["trigger"]]
