"""The job queue and the worker on a real database, where pgqueuer's defaults do not fit.

See docs/decisions/0010-pgqueuer.md.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Protocol
from uuid import UUID, uuid4

import asyncpg
import pytest
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.types import JobId, QueueEntrypoint
from pgqueuer.ports.repository import EntrypointExecutionParameter
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from referral.adapters.jobs import executor as execution
from referral.adapters.jobs import worker_queries as queries
from referral.adapters.jobs.admin import JobAdmin, ListedJob
from referral.adapters.jobs.executor import INITIAL_BACKOFF, backoff
from referral.adapters.jobs.queue import PGQUEUER_NAMES, make_queries
from referral.adapters.jobs.worker import JobWorker
from referral.adapters.jobs.worker_queries import (
    DEQUEUE_DELAY_PER_JOB_SECONDS,
    JOB_BATCH_SIZE,
    MAX_CONCURRENT_JOBS,
    FilteringDriver,
    WorkerQueries,
)
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.jobs import Job, JobContext, PruneJob, WelcomeMailJob
from referral.core.errors import MailRefused, RescheduleJob, Unavailable
from tests.conftest import execute, fetch_value
from tests.support.waiting import measure_thread_time, wait_for_value, wait_until

LEAP_DAY = "0 0 29 2 *"
"""A schedule for pruning that never fires during a test."""

RETRY_DELAY = """
SELECT execute_after - (
    SELECT max(created) FROM pgqueuer_log WHERE job_id = job.id AND status = 'queued'
) FROM pgqueuer AS job
"""
"""The delay of a retried job."""

UNANNOUNCED_SECONDS = 20.0
"""Longer than the delay and a poll, shorter than pgqueuer's own poll of 30 s."""

HandleJob = Callable[[Job, JobContext], Coroutine[Any, Any, None]]


class StartWorker(Protocol):
    """Run a worker with the test's job handler until the block ends."""

    def __call__(
        self, handle: HandleJob, **options: Any
    ) -> AbstractAsyncContextManager[JobWorker]: ...


CRASHING_WORKER = """
import asyncio, os, signal, sys
from datetime import timedelta
from referral.adapters.jobs.worker import JobWorker

async def handle(job, context):
    if str(job.user_id) == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[3], "a") as done:
        done.write(f"{job.user_id}\\n")

worker = JobWorker(sys.argv[1], handle, heartbeat_timeout=timedelta(seconds=1))
asyncio.run(worker.run())
"""


@pytest.fixture
async def monitor(database_url: str) -> JobAdmin:
    """The operator's view; the queue is empty at first."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return JobAdmin(database_url)


@pytest.fixture
def start_worker(database_url: str) -> StartWorker:
    """Run a worker with the test's job handler until the block ends."""

    @asynccontextmanager
    async def start(handle: HandleJob, **options: Any) -> AsyncIterator[JobWorker]:
        worker = JobWorker(database_url, handle, **{"prune_schedule": LEAP_DAY} | options)
        task = asyncio.create_task(worker.run())
        yield worker
        worker.stop()
        await task

    return start


async def enqueue(database: PostgresDatabase, *jobs: Job) -> None:
    """Enqueue jobs in one transaction."""
    async with database.begin() as repositories:
        await repositories.jobs.enqueue(*jobs)


def make_jobs(number: int) -> list[WelcomeMailJob]:
    """Make jobs for different users."""
    return [WelcomeMailJob(uuid4()) for _ in range(number)]


async def is_empty(monitor: JobAdmin) -> bool:
    """Tell whether the queue holds no job of any status."""
    return sum(s.waiting + s.running + s.held for s in await monitor.stats()) == 0


async def wait_until_empty(monitor: JobAdmin, seconds: float = 120) -> None:
    """Wait until the queue is empty."""
    await wait_for_value(lambda: is_empty(monitor), seconds)


async def wait_until_held(monitor: JobAdmin, seconds: float = 120) -> int:
    """Wait until a job is held; return its id."""
    held = await wait_for_value(lambda: monitor.list_jobs("held", 9), seconds)
    return held[0].id


async def test_job_is_enqueued_with_its_transaction(
    database: PostgresDatabase, monitor: JobAdmin
) -> None:
    """A rollback leaves no job, even if enqueueing was its first statement."""
    with suppress(ZeroDivisionError):
        async with database.begin() as repositories:
            await repositories.jobs.enqueue(*make_jobs(1))
            raise ZeroDivisionError
    assert await is_empty(monitor)
    await enqueue(database, *make_jobs(2))
    assert len(await monitor.list_jobs("waiting", 9)) == 2


async def test_several_workers_run_each_job_once(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """Three workers run 200 jobs once each."""
    done: Counter[UUID] = Counter()

    async def handle(job: Job, _: JobContext) -> None:
        assert isinstance(job, WelcomeMailJob)
        done[job.user_id] += 1

    jobs = make_jobs(200)
    async with start_worker(handle), start_worker(handle), start_worker(handle):
        await enqueue(database, *jobs)
        await wait_until_empty(monitor)
    assert done == Counter(job.user_id for job in jobs)


async def test_failed_job_is_retried_soon(
    database: PostgresDatabase,
    monitor: JobAdmin,
    database_url: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The retry is due within 2 s and is found by polling each second, with the same id."""
    contexts: list[JobContext] = []
    delays: list[object] = []
    etas: list[timedelta | None] = []
    next_deferred_eta = WorkerQueries.next_deferred_eta

    async def record_eta(self: WorkerQueries, kinds: list[QueueEntrypoint]) -> timedelta | None:
        etas.append(await next_deferred_eta(self, kinds))
        return etas[-1]

    async def handle(_: Job, context: JobContext) -> None:
        contexts.append(context)
        if context.attempt == 0:
            etas.clear()
            await wait_until(lambda: etas)
            raise OSError
        delays.append(await fetch_value(database_url, RETRY_DELAY))

    monkeypatch.setattr(WorkerQueries, "next_deferred_eta", record_eta)
    async with start_worker(handle), measure_thread_time() as elapsed:
        await enqueue(database, *make_jobs(1))
        await wait_until_empty(monitor)
    (delay,) = delays
    assert isinstance(delay, timedelta)
    assert INITIAL_BACKOFF / 2 <= delay <= INITIAL_BACKOFF
    assert elapsed.seconds < UNANNOUNCED_SECONDS
    assert [context.attempt for context in contexts] == [0, 1]
    assert len({context.id for context in contexts}) == 1


async def test_rescheduled_job_waits_as_long_as_requested(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """The job is requeued; it neither fails nor is held."""
    delay = timedelta(hours=1)

    async def handle(_: Job, __: JobContext) -> None:
        raise RescheduleJob(delay)

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_retried(monitor)
    (job,) = await monitor.list_jobs("waiting", 9)
    assert timedelta(minutes=59) < job.execute_after - datetime.now(UTC) < delay


async def wait_until_retried(monitor: JobAdmin) -> None:
    """Wait until a job was requeued after an attempt."""

    async def was_retried() -> bool:
        return any(job.attempts for job in await monitor.list_jobs("waiting", 9))

    await wait_for_value(was_retried)


async def test_worker_replaces_a_lost_connection(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
            await wait_until_empty(monitor)
            await execute(database_url, terminate)
            await enqueue(database, *make_jobs(1))
            await wait_until_empty(monitor)
    lines = [line for line in logs if line["event"].startswith("worker ")]
    assert [line["event"] for line in lines] == ["worker lost its connection"]
    assert lines[0]["cause"]


async def test_cancelled_job_is_retried(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """A job that raises CancelledError is retried, where pgqueuer would delete it."""
    attempts: list[int] = []

    async def handle(_: Job, context: JobContext) -> None:
        attempts.append(context.attempt)
        if context.attempt == 0:
            raise asyncio.CancelledError

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_empty(monitor)
    assert attempts == [0, 1]


async def test_job_that_kills_its_worker_is_held(
    database: PostgresDatabase, monitor: JobAdmin, database_url: str, tmp_path: os.PathLike[str]
) -> None:
    """After three crashes in a row the job is held, and the others run."""
    poison, *others = jobs = make_jobs(6)
    await enqueue(database, *jobs)
    done = f"{tmp_path}/done"
    command = (sys.executable, "-c", CRASHING_WORKER, database_url, str(poison.user_id), done)
    deaths = 0
    worker = await asyncio.create_subprocess_exec(*command)

    async def restarted() -> list[ListedJob]:
        nonlocal deaths, worker
        if worker.returncode is not None:
            deaths += 1
            worker = await asyncio.create_subprocess_exec(*command)
        return await monitor.list_jobs("held", 9)

    held = await wait_for_value(restarted, 300)
    await wait_until_only_held(monitor)
    worker.terminate()
    await worker.wait()
    assert deaths == 3
    assert [job.kind for job in held] == ["welcome-mail"]
    with open(done) as lines:  # noqa: ASYNC230, PTH123 - a short file
        assert {line.strip() for line in lines} == {str(job.user_id) for job in others}


async def test_quarantined_job_ends_before_another_begins(
    database: PostgresDatabase,
    database_url: str,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash during the next job must not count for the quarantined one."""
    quarantined, *others = make_jobs(5)
    started: list[UUID] = []
    started_at_end: list[int] = []
    finish = WorkerQueries.finish

    async def record_end(queries: WorkerQueries, job: Any) -> None:
        if job.id in queries.quarantined:
            with suppress(AssertionError):
                await wait_until(lambda: len(started) > 1, 0.3)
            started_at_end.append(len(started))
        await finish(queries, job)

    async def handle(job: Job, _: JobContext) -> None:
        assert isinstance(job, WelcomeMailJob)
        started.append(job.user_id)
        if job == quarantined:
            await enqueue(database, *others)

    monkeypatch.setattr(WorkerQueries, "finish", record_end)
    await enqueue(database, quarantined)
    await execute(
        database_url,
        "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority) "
        "SELECT id, 'picked', entrypoint, 0 FROM pgqueuer",
    )
    async with start_worker(handle):
        await wait_until_empty(monitor)
    assert started_at_end == [1]
    assert len(started) == 5


async def wait_until_only_held(monitor: JobAdmin) -> None:
    """Wait until no job waits or runs."""

    async def none_waits_or_runs() -> bool:
        return not sum(s.waiting + s.running for s in await monitor.stats())

    await wait_for_value(none_waits_or_runs)


def test_retries_back_off_with_jitter() -> None:
    """Delays grow from seconds to minutes, stay below 6 hours, and are random."""
    delays = [sorted(backoff(attempt) for _ in range(200)) for attempt in range(70)]
    assert all(len(set(sample)) > 150 for sample in delays)
    assert timedelta(seconds=1) <= delays[0][0] < delays[0][-1] < timedelta(seconds=10)
    medians = [sample[100] for sample in delays]
    assert all(later > 1.5 * sooner for sooner, later in pairwise(medians[:6]))
    assert timedelta(minutes=1) < medians[-1]
    assert max(map(max, delays)) < timedelta(hours=6)


async def test_worker_picks_no_more_than_its_capacity(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
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
        await wait_until_empty(monitor)
    assert most == MAX_CONCURRENT_JOBS


async def test_worker_with_a_backlog_does_not_pause(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
        await wait_until_empty(monitor)
    assert set(queries_sent_at) <= {10 * MAX_CONCURRENT_JOBS}


async def test_jobs_enqueued_one_by_one_are_picked_in_batches(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
        await wait_until_empty(monitor)


async def test_one_notification_is_delivered_per_poll(
    database: PostgresDatabase, database_url: str
) -> None:
    """Polls are paced, so further notifications would pile up."""
    connection = await asyncpg.connect(database_url)
    driver = FilteringDriver(connection)
    statements, received = WorkerQueries.create(driver, lambda: False), list[str]()
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
            JOB_BATCH_SIZE, kinds, uuid4(), MAX_CONCURRENT_JOBS, timedelta(seconds=6)
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


async def test_worker_error_is_logged_as_such(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
            await wait_until_empty(monitor)
    lines = [line for line in logs if line["event"].startswith("worker ")]
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("worker failed, and begins anew", "error")
    ]
    assert lines[0]["exc_info"]


async def test_backlog_is_polled_without_pacing(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
        await wait_until_empty(monitor)


async def test_worker_uses_capacity_smaller_than_a_batch(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
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
        await wait_until_empty(monitor)


async def test_stopped_worker_requeues_unfinished_jobs(
    database: PostgresDatabase,
    monitor: JobAdmin,
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
    assert len(await monitor.list_jobs("waiting", 9)) == 3


async def test_stopped_worker_lets_jobs_finish(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
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
    assert await is_empty(monitor)


async def test_attempt_times_out(
    database: PostgresDatabase,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An attempt that hangs is cancelled and retried."""
    monkeypatch.setattr(execution, "JOB_TIMEOUT_SECONDS", 0.2)

    async def handle(_: Job, context: JobContext) -> None:
        if context.attempt == 0:
            await asyncio.Event().wait()

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_empty(monitor)


async def test_log_is_pruned(
    database: PostgresDatabase, monitor: JobAdmin, database_url: str
) -> None:
    """Old log rows are deleted, newer ones stay."""
    await enqueue(database, *make_jobs(2))
    await execute(database_url, "UPDATE pgqueuer_log SET created = now() - interval '9 days' "
                                "WHERE id = (SELECT min(id) FROM pgqueuer_log)")  # fmt: skip
    async with database.begin() as repositories:
        assert not await repositories.jobs.prune(datetime.now(UTC) - timedelta(days=7))
    connection = await asyncpg.connect(monitor.url)
    assert await connection.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
    await connection.close()


async def test_duplicate_singleton_job_is_skipped(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """A duplicate of a waiting or running job is skipped without failing the transaction."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def handle(_: Job, __: JobContext) -> None:
        started.set()
        await gate.wait()

    await enqueue(database, PruneJob(), PruneJob())
    assert len(await monitor.list_jobs("waiting", 9)) == 1
    async with start_worker(handle):
        await started.wait()
        await enqueue(database, PruneJob())
        assert await monitor.list_jobs("waiting", 9) == []
        gate.set()
        await wait_until_empty(monitor)


async def test_periodic_job_fires_once_for_all_workers(
    database_url: str, monitor: JobAdmin, start_worker: StartWorker
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
    assert monitor.url == database_url
    assert done[0].id == failures[0].id
    assert 5 <= fired <= seconds + 1


async def test_permanently_failed_job_is_held(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """The held job has its traceback; an operator can retry or discard it."""
    fails = True

    async def handle(_: Job, __: JobContext) -> None:
        if fails:
            raise MailRefused("550")

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        held = await wait_until_held(monitor)
        (job,) = await monitor.list_jobs("held", 9)
        assert job.error == "MailRefused: 550"
        assert "Traceback" in job.traceback
        fails = False
        await monitor.retry([held])
        await wait_until_empty(monitor)
        fails = True
        await enqueue(database, *make_jobs(1))
        assert await monitor.discard([await wait_until_held(monitor)]) == 1
        assert await is_empty(monitor)


async def test_job_is_held_after_the_last_attempt(
    database: PostgresDatabase,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of retries is limited."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)

    async def handle(_: Job, __: JobContext) -> None:
        raise OSError

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_held(monitor)
    (job,) = await monitor.list_jobs("held", 9)
    assert (job.attempts, job.error) == (1, "OSError: ")


@pytest.fixture
def second_failure_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold a job after two failures, with no delay between attempts."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)
    monkeypatch.setattr(execution, "INITIAL_BACKOFF", timedelta(milliseconds=1))


@pytest.mark.usefixtures("second_failure_holds")
async def test_reschedule_is_no_failure(
    database: PostgresDatabase,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reschedule counts neither for the limit of failures nor for the backoff."""
    backoffs: list[int] = []
    outcomes: list[Exception] = [
        RescheduleJob(timedelta()),
        RescheduleJob(timedelta()),
        OSError(),
        RescheduleJob(timedelta()),
    ]

    def record_backoff(failures: int) -> timedelta:
        backoffs.append(failures)
        return timedelta()

    async def handle(_: Job, context: JobContext) -> None:
        raise outcomes[context.attempt] if context.attempt < len(outcomes) else LookupError

    monkeypatch.setattr(execution, "backoff", record_backoff)
    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_held(monitor)
    (job,) = await monitor.list_jobs("held", 9)
    assert (job.attempts, job.error) == (4, "LookupError: ")
    assert backoffs == [0]


@pytest.mark.usefixtures("second_failure_holds")
async def test_worker_shutdown_is_no_failure(
    database: PostgresDatabase,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job keeps all its attempts, however often workers restart."""
    monkeypatch.setattr(execution, "SHUTDOWN_GRACE_SECONDS", 0.01)
    contexts: list[JobContext] = []

    async def hang(_: Job, context: JobContext) -> None:
        contexts.append(context)
        await asyncio.Event().wait()

    async def fail(_: Job, context: JobContext) -> None:
        contexts.append(context)
        raise OSError

    await enqueue(database, *make_jobs(1))
    for attempt in range(2):
        async with start_worker(hang):
            await wait_until(lambda attempt=attempt: len(contexts) > attempt)  # type: ignore[misc]
    async with start_worker(fail):
        await wait_until_held(monitor)
    assert [context.attempt for context in contexts] == [0, 1, 2, 3]


@pytest.mark.usefixtures("second_failure_holds")
@pytest.mark.parametrize("way", ["referral jobs retry", "the web page"])
async def test_requeued_job_has_all_attempts_again(
    database: PostgresDatabase,
    database_url: str,
    monitor: JobAdmin,
    start_worker: StartWorker,
    way: str,
) -> None:
    """The operator's retry resets the failures, also if the next attempt reschedules."""
    contexts: list[JobContext] = []

    async def handle(_: Job, context: JobContext) -> None:
        contexts.append(context)
        if len(contexts) == 3:
            raise RescheduleJob(timedelta())
        raise OSError

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        held = await wait_until_held(monitor)
        if way == "the web page":
            connection = await asyncpg.connect(database_url)
            ids = [JobId(held)]
            await make_queries(AsyncpgDriver(connection)).requeue_jobs(ids)
            await connection.close()
        else:
            await monitor.retry([held])
        await wait_until(lambda: len(contexts) == 5)
        await wait_until_held(monitor)
    assert [context.attempt for context in contexts] == [0, 1, 0, 1, 2]
    assert [dict(context.counters) for context in contexts] == [
        {},
        {"failures": 1},
        {},
        {},
        {"failures": 1},
    ]


async def test_job_keeps_its_counters_and_request_id(
    database: PostgresDatabase, database_url: str, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """Each attempt sees the counters of the earlier ones."""
    outcomes = [
        RescheduleJob(timedelta(), "asked"),
        OSError(),
        RescheduleJob(timedelta(), "asked"),
        RescheduleJob(timedelta()),
    ]
    contexts: list[JobContext] = []

    async def handle(_: Job, context: JobContext) -> None:
        contexts.append(context)
        raise (
            outcomes[context.attempt]
            if context.attempt < len(outcomes)
            else RescheduleJob(timedelta(hours=1))
        )

    with bound_contextvars(request_id="joined"):
        await enqueue(database, *make_jobs(1))
    async with start_worker(handle):
        await wait_until(lambda: len(contexts) == 5)
        await wait_until_retried(monitor)
    assert dict(contexts[-1].counters) == {"asked": 2, "failures": 1}
    connection = await asyncpg.connect(database_url)
    request_id = await connection.fetchval("SELECT headers ->> 'request_id' FROM pgqueuer")
    await connection.close()
    assert request_id == "joined"


async def test_cause_of_a_retry_is_logged(
    database: PostgresDatabase, monitor: JobAdmin, start_worker: StartWorker
) -> None:
    """The log has the types of the exception chain, and no texts: these may hold an e-mail."""
    outcomes = [
        Unavailable("ann@example.com"),
        RescheduleJob(timedelta()),
        MailRefused("ann@example.com"),
    ]

    async def handle(_: Job, context: JobContext) -> None:
        cause = Unavailable()
        cause.__cause__ = ConnectionRefusedError("ann@example.com")
        raise outcomes[context.attempt] from cause

    with capture_logs() as logs:
        async with start_worker(handle):
            await enqueue(database, *make_jobs(1))
            await wait_until_held(monitor)
    logged = [(line["outcome"], line.get("cause")) for line in logs if line["event"] == "job"]
    assert logged == [
        ("again", "Unavailable from ConnectionRefusedError"),
        ("again", "RescheduleJob from Unavailable from ConnectionRefusedError"),
        ("held", "MailRefused from Unavailable from ConnectionRefusedError"),
    ]
    assert "ann@example.com" not in str(logs)


async def test_job_that_cannot_be_requeued_is_picked_again(
    database: PostgresDatabase,
    monitor: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage during the requeue does not hold the job."""
    errors = [asyncpg.ConnectionDoesNotExistError("connection was closed")]
    contexts: list[JobContext] = []
    retry = Queries.retry_job

    async def fail_once(*args: Any) -> None:
        if errors:
            raise errors.pop()
        await retry(*args)

    async def handle(_: Job, context: JobContext) -> None:
        contexts.append(context)
        if len(contexts) == 1:
            raise OSError

    monkeypatch.setattr(Queries, "retry_job", fail_once)
    async with start_worker(handle, heartbeat_timeout=timedelta(seconds=1)):
        await enqueue(database, *make_jobs(1))
        await wait_until(lambda: len(contexts) == 2)
        await wait_until_empty(monitor)
    assert not errors


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
