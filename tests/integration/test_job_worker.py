"""The worker: capacity, polling, lost connections and shutdown.

See docs/decisions/0010-pgqueuer.md.
"""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from referral.adapters.jobs import executor as execution
from referral.adapters.jobs import worker_queries as queries
from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.queue import WEBHOOK_DELIVERIES
from referral.adapters.jobs.worker import MAIN_WORKER, WEBHOOK_WORKER
from referral.adapters.jobs.worker_queries import (
    BATCHES_AT_ONCE,
    DEQUEUE_DELAY_PER_JOB_SECONDS,
    WorkerQueries,
)
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.jobs import DeliverWebhookJob, Job, JobContext
from tests.conftest import execute
from tests.integration.conftest import StartWorker
from tests.integration.job_queue import (
    enqueue,
    is_empty,
    make_jobs,
    wait_until_empty,
)
from tests.support.waiting import wait_for_value, wait_until

JOB_BATCH_SIZE = MAIN_WORKER.batch_size
MAX_CONCURRENT_JOBS = BATCHES_AT_ONCE * JOB_BATCH_SIZE


async def test_worker_picks_no_more_than_its_capacity(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """The number of running jobs is limited, whatever the backlog."""
    gate = asyncio.Event()
    running = most = 0

    async def handle(_: Job, __: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    async with start_worker(handle):
        await enqueue(database, *make_jobs(3 * MAX_CONCURRENT_JOBS))
        await wait_until(lambda: running == MAX_CONCURRENT_JOBS)
        gate.set()
        await wait_until_empty(job_admin)
    assert most == MAX_CONCURRENT_JOBS


async def test_worker_with_a_backlog_does_not_pause(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the limit of jobs, pgqueuer's query before its pause of 0.1 s is not sent."""
    started = done = 0
    full = asyncio.Event()
    queries_sent_at: list[int] = []
    eligible = WorkerQueries.eligible_queued_work

    async def record_query(queries: WorkerQueries, entrypoints: Any) -> int:
        queries_sent_at.append(done)
        return await eligible(queries, entrypoints)

    async def handle(_: Job, __: JobContext) -> None:
        nonlocal started, done, full
        started, gate = started + 1, full
        if started % MAX_CONCURRENT_JOBS == 0:
            gate.set()
            full = asyncio.Event()
        await gate.wait()
        done += 1

    monkeypatch.setattr(WorkerQueries, "eligible_queued_work", record_query)
    await enqueue(database, *make_jobs(10 * MAX_CONCURRENT_JOBS))
    async with start_worker(handle):
        await wait_until_empty(job_admin)
    assert set(queries_sent_at) <= {10 * MAX_CONCURRENT_JOBS}


async def test_jobs_enqueued_one_by_one_are_picked_in_batches(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Polls are paced, so that polling does not cost more than the jobs."""
    batches: list[int] = []
    dequeue = WorkerQueries.dequeue

    async def record_batch(queries: WorkerQueries, *args: Any, **options: Any) -> Any:
        jobs = await dequeue(queries, *args, **options)
        batches.append(len(jobs))
        return jobs

    async def handle(_: Job, __: JobContext) -> None:
        pass

    monkeypatch.setattr(WorkerQueries, "dequeue", record_batch)
    now = asyncio.get_running_loop().time
    async with start_worker(handle):
        await wait_until(lambda: batches)
        batches.clear()
        began = now()
        for job in make_jobs(JOB_BATCH_SIZE - 1):
            await enqueue(database, job)
        await wait_until(lambda: sum(batches) == JOB_BATCH_SIZE - 1)
        assert sum(map(bool, batches)) <= (now() - began) / DEQUEUE_DELAY_PER_JOB_SECONDS + 1
        await wait_until_empty(job_admin)


async def test_backlog_is_polled_without_pacing(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If a poll left jobs behind, the next poll follows at once."""

    async def handle(_: Job, __: JobContext) -> None:
        pass

    monkeypatch.setattr(queries, "DEQUEUE_DELAY_PER_JOB_SECONDS", 600)
    monkeypatch.setattr(queries, "MAX_DEQUEUE_DELAY_SECONDS", 600)
    await enqueue(database, *make_jobs(4 * JOB_BATCH_SIZE))
    async with start_worker(handle):
        await wait_until_empty(job_admin)


async def test_worker_uses_capacity_smaller_than_a_batch(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """Slow jobs leave room for two jobs, and the worker picks two at a time."""
    gate = asyncio.Event()
    slow, quick = make_jobs(MAX_CONCURRENT_JOBS - 2), make_jobs(20)
    started: list[Job] = []

    async def handle(job: Job, _: JobContext) -> None:
        started.append(job)
        if job in slow:
            await gate.wait()

    async with start_worker(handle):
        await enqueue(database, *slow)
        await wait_until(lambda: len(started) == len(slow))
        await enqueue(database, *quick)
        await wait_until(lambda: len(started) == len(slow) + len(quick))
        gate.set()
        await wait_until_empty(job_admin)


async def test_worker_replaces_a_lost_connection(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    database_url: str,
    start_worker: StartWorker,
) -> None:
    """The worker has its own connection and reconnects when that is lost."""

    async def handle(_: Job, __: JobContext) -> None:
        return

    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'referral worker' AND datname = current_database()"
    )
    with capture_logs() as logs:
        async with start_worker(handle):
            await enqueue(database, *make_jobs(1))
            await wait_until_empty(job_admin)
            await execute(database_url, terminate)
            await enqueue(database, *make_jobs(1))
            await wait_until_empty(job_admin)
    lines = [line for line in logs if line["event"].startswith("worker ")]
    assert [line["event"] for line in lines] == ["worker lost its connection"]
    assert lines[0]["cause"]


async def test_worker_error_is_logged_as_such(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error is logged with its traceback, not as a lost connection, and the worker restarts."""
    outcomes = [LookupError(), None]
    make = WorkerQueries.create

    def fail_once(*args: Any) -> WorkerQueries:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return make(*args)

    async def handle(_: Job, __: JobContext) -> None:
        return

    monkeypatch.setattr(WorkerQueries, "create", fail_once)
    monkeypatch.setattr("referral.adapters.jobs.worker.RESTART_DELAY_SECONDS", 0.01)
    await enqueue(database, *make_jobs(1))
    with capture_logs() as logs:
        async with start_worker(handle):
            await wait_until_empty(job_admin)
    lines = [line for line in logs if line["event"].startswith("worker ")]
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("worker failed and restarts", "error")
    ]
    assert lines[0]["exc_info"]


async def test_stopped_worker_requeues_unfinished_jobs(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker waits for the grace period and requeues the rest."""
    monkeypatch.setattr(execution, "SHUTDOWN_GRACE_SECONDS", 0.3)
    started: list[JobContext] = []

    async def handle(_: Job, context: JobContext) -> None:
        started.append(context)
        await asyncio.Event().wait()

    async with asyncio.timeout(60), start_worker(handle):
        await enqueue(database, *make_jobs(3))
        await wait_until(lambda: len(started) == 3)
    assert len(await job_admin.list_jobs("waiting", 9)) == 3


async def test_stopped_worker_lets_jobs_finish(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """A job that ends within the grace period is done once."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def handle(_: Job, __: JobContext) -> None:
        started.set()
        await gate.wait()

    async with start_worker(handle) as worker:
        await enqueue(database, *make_jobs(1))
        await started.wait()
        worker.stop()
        gate.set()
    assert await is_empty(job_admin)


async def test_webhooks_have_a_worker_of_their_own(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """Webhooks that occupy their worker hold up no mail."""
    release = asyncio.Event()
    running: list[Job] = []

    async def wait(job: Job, _: JobContext) -> None:
        running.append(job)
        await release.wait()

    async def handle(_: Job, __: JobContext) -> None:
        pass

    slots = BATCHES_AT_ONCE * WEBHOOK_WORKER.batch_size
    async with start_worker(wait, profile=WEBHOOK_WORKER), start_worker(handle):
        await enqueue(database, *(DeliverWebhookJob(uuid4()) for _ in range(slots + 1)))
        await wait_until(lambda: len(running) == slots)
        await enqueue(database, *make_jobs(2 * MAX_CONCURRENT_JOBS))
        await wait_for_value(lambda: has_no_mails(job_admin))
        assert len(running) == slots
        release.set()
        await wait_until_empty(job_admin)
    assert {type(job) for job in running} == {DeliverWebhookJob}


async def has_no_mails(job_admin: JobAdmin) -> bool:
    """Tell whether all jobs but deliveries are done."""
    others = (each for each in await job_admin.stats() if each.kind != WEBHOOK_DELIVERIES)
    return not sum(each.waiting + each.running for each in others)


async def test_one_job_per_webhook(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """A webhook whose job waits or runs gets no other one; later it does."""
    webhook_id, release = uuid4(), asyncio.Event()
    running: list[Job] = []

    async def wait(job: Job, _: JobContext) -> None:
        running.append(job)
        await release.wait()

    async with start_worker(wait, profile=WEBHOOK_WORKER):
        await enqueue(database, DeliverWebhookJob(webhook_id), DeliverWebhookJob(webhook_id))
        await wait_until(lambda: running)
        await enqueue(database, DeliverWebhookJob(webhook_id))
        release.set()
        await wait_until_empty(job_admin)
        await enqueue(database, DeliverWebhookJob(webhook_id))
        await wait_until(lambda: len(running) == 2)
    assert running == [DeliverWebhookJob(webhook_id)] * 2
