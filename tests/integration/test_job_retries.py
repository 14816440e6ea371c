"""Failed, cancelled and rescheduled jobs: attempts, backoff and held jobs.

See docs/decisions/0010-pgqueuer.md.
"""

import asyncio
import os
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.types import JobId, QueueEntrypoint
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from referral.adapters.jobs import executor as execution
from referral.adapters.jobs.admin import JobAdmin, ListedJob
from referral.adapters.jobs.executor import INITIAL_BACKOFF, backoff
from referral.adapters.jobs.queue import make_queries
from referral.adapters.jobs.worker import MAIN_WORKER, WEBHOOK_WORKER
from referral.adapters.jobs.worker_queries import WorkerQueries
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.jobs import DeliverWebhookJob, Job, JobContext, WelcomeMailJob
from referral.core.errors import MailRefused, RescheduleJob, Unavailable
from tests.conftest import execute, fetch_value
from tests.integration.conftest import StartWorker
from tests.integration.job_queue import (
    enqueue,
    is_empty,
    make_jobs,
    wait_until_empty,
    wait_until_held,
    wait_until_only_held,
    wait_until_retried,
)
from tests.support.waiting import measure_thread_time, wait_for_value, wait_until

RETRY_DELAY = """
SELECT execute_after - (
    SELECT max(created) FROM pgqueuer_log WHERE job_id = job.id AND status = 'queued'
) FROM pgqueuer AS job
"""
"""The delay of a retried job."""


UNANNOUNCED_SECONDS = 20.0
"""Longer than the delay and a poll, shorter than pgqueuer's own poll of 30 s."""


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


async def test_failed_job_is_retried_soon(
    database: PostgresDatabase,
    job_admin: JobAdmin,
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
        await wait_until_empty(job_admin)
    (delay,) = delays
    assert isinstance(delay, timedelta)
    assert INITIAL_BACKOFF / 2 <= delay <= INITIAL_BACKOFF
    assert elapsed.seconds < UNANNOUNCED_SECONDS
    assert [context.attempt for context in contexts] == [0, 1]
    assert len({context.id for context in contexts}) == 1


async def test_rescheduled_job_waits_as_long_as_requested(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """The job is requeued; it neither fails nor is held."""
    delay = timedelta(hours=1)

    async def handle(_: Job, __: JobContext) -> None:
        raise RescheduleJob(delay)

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_retried(job_admin)
    (job,) = await job_admin.list_jobs("waiting", 9)
    assert timedelta(minutes=59) < job.execute_after - datetime.now(UTC) < delay


async def test_cancelled_job_is_retried(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """A job that raises CancelledError is retried, where pgqueuer would delete it."""
    attempts: list[int] = []

    async def handle(_: Job, context: JobContext) -> None:
        attempts.append(context.attempt)
        if context.attempt == 0:
            raise asyncio.CancelledError

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_empty(job_admin)
    assert attempts == [0, 1]


async def test_job_that_kills_its_worker_is_held(
    database: PostgresDatabase, job_admin: JobAdmin, database_url: str, tmp_path: os.PathLike[str]
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
        return await job_admin.list_jobs("held", 9)

    held = await wait_for_value(restarted, 300)
    await wait_until_only_held(job_admin)
    worker.terminate()
    await worker.wait()
    assert deaths == 3
    assert [job.kind for job in held] == ["welcome-mail"]
    with open(done) as lines:  # noqa: ASYNC230, PTH123 - a short file
        assert {line.strip() for line in lines} == {str(job.user_id) for job in others}


async def test_quarantined_job_ends_before_another_begins(
    database: PostgresDatabase,
    database_url: str,
    job_admin: JobAdmin,
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
        await wait_until_empty(job_admin)
    assert started_at_end == [1]
    assert len(started) == 5


async def test_deliveries_of_a_crashed_worker_run_at_once(
    database: PostgresDatabase,
    database_url: str,
    job_admin: JobAdmin,
    start_worker: StartWorker,
) -> None:
    """One whose receiver does not answer holds up no other, and none is held for crashes."""
    running: list[Job] = []
    release = asyncio.Event()

    async def wait(job: Job, _: JobContext) -> None:
        running.append(job)
        await release.wait()

    await enqueue(database, *(DeliverWebhookJob(uuid4()) for _ in range(3)))
    await execute(
        database_url,
        "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority) "
        "SELECT id, 'picked', entrypoint, 0 FROM pgqueuer, generate_series(1, 5)",
    )
    async with start_worker(wait, profile=WEBHOOK_WORKER):
        await wait_until(lambda: len(running) == 3)
        release.set()
        await wait_until_empty(job_admin)
    assert not await job_admin.list_jobs("held", 9)


def test_retries_back_off_with_jitter() -> None:
    """Delays grow from seconds to minutes, stay below 6 hours, and are random."""
    delays = [sorted(backoff(attempt) for _ in range(200)) for attempt in range(70)]
    assert all(len(set(sample)) > 150 for sample in delays)
    assert timedelta(seconds=1) <= delays[0][0] < delays[0][-1] < timedelta(seconds=10)
    medians = [sample[100] for sample in delays]
    assert all(later > 1.5 * sooner for sooner, later in pairwise(medians[:6]))
    assert timedelta(minutes=1) < medians[-1]
    assert max(map(max, delays)) < timedelta(hours=6)


async def test_attempt_times_out(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """An attempt that hangs is cancelled and retried."""
    profile = replace(MAIN_WORKER, timeout_seconds=0.2)

    async def handle(_: Job, context: JobContext) -> None:
        if context.attempt == 0:
            await asyncio.Event().wait()

    async with start_worker(handle, profile=profile):
        await enqueue(database, *make_jobs(1))
        await wait_until_empty(job_admin)


async def test_permanently_failed_job_is_held(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
) -> None:
    """The held job has its traceback; an operator can retry or discard it."""
    fails = True

    async def handle(_: Job, __: JobContext) -> None:
        if fails:
            raise MailRefused("550")

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        held = await wait_until_held(job_admin)
        (job,) = await job_admin.list_jobs("held", 9)
        assert job.error == "MailRefused: 550"
        assert "Traceback" in job.traceback
        fails = False
        await job_admin.retry([held])
        await wait_until_empty(job_admin)
        fails = True
        await enqueue(database, *make_jobs(1))
        held = await wait_until_held(job_admin)
        assert await job_admin.discard([held]) == [held]
        assert await is_empty(job_admin)


async def test_job_is_held_after_the_last_attempt(
    database: PostgresDatabase,
    job_admin: JobAdmin,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of retries is limited."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)

    async def handle(_: Job, __: JobContext) -> None:
        raise OSError

    async with start_worker(handle):
        await enqueue(database, *make_jobs(1))
        await wait_until_held(job_admin)
    (job,) = await job_admin.list_jobs("held", 9)
    assert (job.attempts, job.error) == (1, "OSError: ")


@pytest.fixture
def second_failure_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold a job after two failures, with no delay between attempts."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)
    monkeypatch.setattr(execution, "INITIAL_BACKOFF", timedelta(milliseconds=1))


@pytest.mark.usefixtures("second_failure_holds")
async def test_reschedule_is_no_failure(
    database: PostgresDatabase,
    job_admin: JobAdmin,
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
        await wait_until_held(job_admin)
    (job,) = await job_admin.list_jobs("held", 9)
    assert (job.attempts, job.error) == (4, "LookupError: ")
    assert backoffs == [0]


@pytest.mark.usefixtures("second_failure_holds")
async def test_worker_shutdown_is_no_failure(
    database: PostgresDatabase,
    job_admin: JobAdmin,
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
        await wait_until_held(job_admin)
    assert [context.attempt for context in contexts] == [0, 1, 2, 3]


@pytest.mark.usefixtures("second_failure_holds")
@pytest.mark.parametrize("way", ["referral jobs retry", "the web page"])
async def test_requeued_job_has_all_attempts_again(
    database: PostgresDatabase,
    database_url: str,
    job_admin: JobAdmin,
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
        held = await wait_until_held(job_admin)
        if way == "the web page":
            connection = await asyncpg.connect(database_url)
            ids = [JobId(held)]
            await make_queries(AsyncpgDriver(connection)).requeue_jobs(ids)
            await connection.close()
        else:
            await job_admin.retry([held])
        await wait_until(lambda: len(contexts) == 5)
        await wait_until_held(job_admin)
    assert [context.attempt for context in contexts] == [0, 1, 0, 1, 2]
    assert [dict(context.counters) for context in contexts] == [
        {},
        {"failures": 1},
        {},
        {},
        {"failures": 1},
    ]


async def test_job_keeps_its_counters_and_request_id(
    database: PostgresDatabase, database_url: str, job_admin: JobAdmin, start_worker: StartWorker
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
        await wait_until_retried(job_admin)
    assert dict(contexts[-1].counters) == {"asked": 2, "failures": 1}
    connection = await asyncpg.connect(database_url)
    request_id = await connection.fetchval("SELECT headers ->> 'request_id' FROM pgqueuer")
    await connection.close()
    assert request_id == "joined"


async def test_cause_of_a_retry_is_logged(
    database: PostgresDatabase, job_admin: JobAdmin, start_worker: StartWorker
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
            await wait_until_held(job_admin)
    logged = [(line["outcome"], line.get("cause")) for line in logs if line["event"] == "job"]
    assert logged == [
        ("again", "Unavailable from ConnectionRefusedError"),
        ("again", "RescheduleJob from Unavailable from ConnectionRefusedError"),
        ("held", "MailRefused from Unavailable from ConnectionRefusedError"),
    ]
    assert "ann@example.com" not in str(logs)


async def test_job_that_cannot_be_requeued_is_picked_again(
    database: PostgresDatabase,
    job_admin: JobAdmin,
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
        await wait_until_empty(job_admin)
    assert not errors
