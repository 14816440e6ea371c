"""The queue and the worker on a real database: what pgqueuer's defaults would get wrong."""

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
"""When to prune, lest the full hour brings a job that a test did not queue."""

RETRY_DELAY = """
SELECT execute_after - (
    SELECT max(created) FROM pgqueuer_log WHERE job_id = job.id AND status = 'queued'
) FROM pgqueuer AS job
"""
"""For how long a job was put back."""

UNANNOUNCED_SECONDS = 20.0
"""Much longer than the wait and the second; pgqueuer itself looks every 30 s."""

JobHandler = Callable[[Job, JobContext], Coroutine[Any, Any, None]]


class StartWorker(Protocol):
    """Run a worker with a job of the test's own until the block ends."""

    def __call__(
        self, do: JobHandler, **options: Any
    ) -> AbstractAsyncContextManager[JobWorker]: ...


POISON = """
import asyncio, os, signal, sys
from datetime import timedelta
from referral.adapters.jobs.worker import Worker

async def do(job, run):
    if str(job.user_id) == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[3], "a") as done:
        done.write(f"{job.user_id}\\n")

asyncio.run(Worker(sys.argv[1], do, heartbeat=timedelta(seconds=1)).run())
"""


@pytest.fixture
async def monitor(database_url: str) -> JobAdmin:
    """What the operator sees; the queue is empty at first."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return JobAdmin(database_url)


@pytest.fixture
def work(database_url: str) -> StartWorker:
    """Run a worker with a job of the test's own until the block ends."""

    @asynccontextmanager
    async def start(do: JobHandler, **options: Any) -> AsyncIterator[JobWorker]:
        worker = JobWorker(database_url, do, **{"pruning": LEAP_DAY} | options)
        task = asyncio.create_task(worker.run())
        yield worker
        worker.stop()
        await task

    return start


async def enqueue(database: PostgresDatabase, *jobs: Job) -> None:
    """Queue jobs in a transaction."""
    async with database.begin() as records:
        await records.jobs.enqueue(*jobs)


def make_jobs(number: int) -> list[WelcomeMailJob]:
    """Make up some jobs."""
    return [WelcomeMailJob(uuid4()) for _ in range(number)]


async def is_empty(monitor: JobAdmin) -> bool:
    """Tell whether there is no job left, of whatever status."""
    return sum(s.waiting + s.running + s.held for s in await monitor.stats()) == 0


async def until_empty(monitor: JobAdmin, seconds: float = 120) -> None:
    """Wait for the last job."""
    await wait_for_value(lambda: is_empty(monitor), seconds)


async def until_held(monitor: JobAdmin, seconds: float = 120) -> int:
    """Wait for a job to be held; return its id."""
    held = await wait_for_value(lambda: monitor.list_jobs("held", 9), seconds)
    return held[0].id


async def test_a_job_is_queued_with_its_transaction_and_not_before(
    database: PostgresDatabase, monitor: JobAdmin
) -> None:
    """Also when queueing is the first thing that a transaction does (1)."""
    with suppress(ZeroDivisionError):
        async with database.begin() as records:
            await records.jobs.enqueue(*make_jobs(1))
            raise ZeroDivisionError
    assert await is_empty(monitor)
    await enqueue(database, *make_jobs(2))
    assert len(await monitor.list_jobs("waiting", 9)) == 2


async def test_every_job_is_done_once_by_several_workers(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """Two hundred jobs, three workers."""
    done: Counter[UUID] = Counter()

    async def do(job: Job, _: JobContext) -> None:
        assert isinstance(job, WelcomeMailJob)
        done[job.user_id] += 1

    jobs = make_jobs(200)
    async with work(do), work(do), work(do):
        await enqueue(database, *jobs)
        await until_empty(monitor)
    assert done == Counter(job.user_id for job in jobs)


async def test_a_failed_job_is_tried_again_soon(
    database: PostgresDatabase,
    monitor: JobAdmin,
    database_url: str,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is due in two seconds at most, and though it fails when the worker waits already and
    nobody announces it, the worker looks every second (2); its id stays the same.
    """
    runs: list[JobContext] = []
    waits: list[object] = []
    looks: list[timedelta | None] = []
    next_deferred_eta = WorkerQueries.next_deferred_eta

    async def look(self: WorkerQueries, kinds: list[QueueEntrypoint]) -> timedelta | None:
        looks.append(await next_deferred_eta(self, kinds))
        return looks[-1]

    async def do(_: Job, run: JobContext) -> None:
        runs.append(run)
        if run.attempt == 0:
            looks.clear()
            await wait_until(lambda: looks)
            raise OSError
        waits.append(await fetch_value(database_url, RETRY_DELAY))

    monkeypatch.setattr(WorkerQueries, "next_deferred_eta", look)
    async with work(do), measure_thread_time() as waited:
        await enqueue(database, *make_jobs(1))
        await until_empty(monitor)
    (wait,) = waits
    assert isinstance(wait, timedelta)
    assert INITIAL_BACKOFF / 2 <= wait <= INITIAL_BACKOFF
    assert waited.seconds < UNANNOUNCED_SECONDS
    assert [run.attempt for run in runs] == [0, 1]
    assert len({run.id for run in runs}) == 1


async def test_a_job_that_has_to_wait_waits_as_long_as_it_says(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """It is put back, and neither failed nor held."""
    wait = timedelta(hours=1)

    async def do(_: Job, __: JobContext) -> None:
        raise RescheduleJob(wait)

    async with work(do):
        await enqueue(database, *make_jobs(1))
        await until_retried(monitor)
    (job,) = await monitor.list_jobs("waiting", 9)
    assert timedelta(minutes=59) < job.execute_after - datetime.now(UTC) < wait


async def until_retried(monitor: JobAdmin) -> None:
    """Wait until a job has been put back."""

    async def was_attempted() -> bool:
        return any(job.attempts for job in await monitor.list_jobs("waiting", 9))

    await wait_for_value(was_attempted)


async def test_a_lost_connection_is_made_anew(
    database: PostgresDatabase,
    monitor: JobAdmin,
    database_url: str,
    work: StartWorker,
) -> None:
    """The worker has a connection of its own (10), and gets another when that one goes (3)."""

    async def do(_: Job, __: JobContext) -> None:
        return

    lost = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'referral worker' AND datname = current_database()"
    )
    with capture_logs() as logs:
        async with work(do):
            await enqueue(database, *make_jobs(1))
            await until_empty(monitor)
            await execute(database_url, lost)
            await enqueue(database, *make_jobs(1))
            await until_empty(monitor)
    told = [line for line in logs if line["event"].startswith("worker ")]
    assert [line["event"] for line in told] == ["worker lost its connection"]
    assert told[0]["cause"]


async def test_a_cancelled_job_is_not_lost(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """Pgqueuer deletes a job in which a `CancelledError` comes up (4)."""
    attempts: list[int] = []

    async def do(_: Job, run: JobContext) -> None:
        attempts.append(run.attempt)
        if run.attempt == 0:
            raise asyncio.CancelledError

    async with work(do):
        await enqueue(database, *make_jobs(1))
        await until_empty(monitor)
    assert attempts == [0, 1]


async def test_a_job_that_kills_its_worker_is_held_and_no_other_is(
    database: PostgresDatabase, monitor: JobAdmin, database_url: str, tmp_path: os.PathLike[str]
) -> None:
    """Three deaths in a row are enough, though pgqueuer counts none (5)."""
    poison, *others = jobs = make_jobs(6)
    await enqueue(database, *jobs)
    done = f"{tmp_path}/done"
    command = (sys.executable, "-c", POISON, database_url, str(poison.user_id), done)
    deaths = 0
    worker = await asyncio.create_subprocess_exec(*command)

    async def restarted() -> list[ListedJob]:
        nonlocal deaths, worker
        if worker.returncode is not None:
            deaths += 1
            worker = await asyncio.create_subprocess_exec(*command)
        return await monitor.list_jobs("held", 9)

    held = await wait_for_value(restarted, 300)
    await until_only_held(monitor)
    worker.terminate()
    await worker.wait()
    assert deaths == 3
    assert [job.kind for job in held] == ["welcome-mail"]
    with open(done) as lines:  # noqa: ASYNC230, PTH123 - a short file
        assert {line.strip() for line in lines} == {str(job.user_id) for job in others}


async def test_the_end_of_a_suspect_is_noted_before_another_job_begins(
    database: PostgresDatabase,
    database_url: str,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a worker that dies of the next one does not count against it."""
    suspect, *others = make_jobs(5)
    began: list[UUID] = []
    at_the_end: list[int] = []
    finish = WorkerQueries.finish

    async def note(queries: WorkerQueries, job: Any) -> None:
        if job.id in queries.quarantined:
            with suppress(AssertionError):
                await wait_until(lambda: len(began) > 1, 0.3)
            at_the_end.append(len(began))
        await finish(queries, job)

    async def do(job: Job, _: JobContext) -> None:
        assert isinstance(job, WelcomeMailJob)
        began.append(job.user_id)
        if job == suspect:
            await enqueue(database, *others)

    monkeypatch.setattr(WorkerQueries, "finish", note)
    await enqueue(database, suspect)
    await execute(
        database_url,
        "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority) "
        "SELECT id, 'picked', entrypoint, 0 FROM pgqueuer",
    )
    async with work(do):
        await until_empty(monitor)
    assert at_the_end == [1]
    assert len(began) == 5


async def until_only_held(monitor: JobAdmin) -> None:
    """Wait until nothing waits or runs."""

    async def is_so() -> bool:
        return not sum(s.waiting + s.running for s in await monitor.stats())

    await wait_for_value(is_so)


def test_retries_back_off_with_jitter() -> None:
    """Later and later, from seconds to minutes and never more than hours; no two alike (6)."""
    waits = [sorted(backoff(attempt) for _ in range(200)) for attempt in range(70)]
    assert all(len(set(some)) > 150 for some in waits)
    assert timedelta(seconds=1) <= waits[0][0] < waits[0][-1] < timedelta(seconds=10)
    middles = [some[100] for some in waits]
    assert all(later > 1.5 * sooner for sooner, later in pairwise(middles[:6]))
    assert timedelta(minutes=1) < middles[-1]
    assert max(map(max, waits)) < timedelta(hours=6)


async def test_a_worker_does_not_take_more_than_it_can_do(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """However many wait (6)."""
    gate = asyncio.Event()
    running = most = 0

    async def do(_: Job, __: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    async with work(do):
        await enqueue(database, *make_jobs(3 * MAX_CONCURRENT_JOBS))
        await wait_until(lambda: running == MAX_CONCURRENT_JOBS)
        gate.set()
        await until_empty(monitor)
    assert most == MAX_CONCURRENT_JOBS


async def test_a_worker_with_a_backlog_takes_no_naps(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pgqueuer sleeps for 0.1 s when it has as many as it may; what it asks before is told (6)."""
    started = done = 0
    full = asyncio.Event()
    naps: list[int] = []
    asked = WorkerQueries.eligible_queued_work

    async def ask(queries: WorkerQueries, entrypoints: Any) -> int:
        naps.append(done)
        return await asked(queries, entrypoints)

    async def do(_: Job, __: JobContext) -> None:
        nonlocal started, done, full
        started, gate = started + 1, full
        if started % MAX_CONCURRENT_JOBS == 0:
            gate.set()
            full = asyncio.Event()
        await gate.wait()
        done += 1

    monkeypatch.setattr(WorkerQueries, "eligible_queued_work", ask)
    await enqueue(database, *make_jobs(10 * MAX_CONCURRENT_JOBS))
    async with work(do):
        await until_empty(monitor)
    assert set(naps) <= {10 * MAX_CONCURRENT_JOBS}


async def test_jobs_that_come_one_by_one_are_taken_together(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a flood of registrations, looking for jobs would cost more than doing them (6)."""
    looks: list[int] = []
    dequeue = WorkerQueries.dequeue

    async def note(queries: WorkerQueries, *args: Any, **options: Any) -> Any:
        jobs = await dequeue(queries, *args, **options)
        looks.append(len(jobs))
        return jobs

    async def do(_: Job, __: JobContext) -> None:
        pass

    monkeypatch.setattr(WorkerQueries, "dequeue", note)
    now = asyncio.get_running_loop().time
    async with work(do):
        await wait_until(lambda: looks)
        looks.clear()
        began = now()
        for job in make_jobs(JOB_BATCH_SIZE - 1):
            await enqueue(database, job)
        await wait_until(lambda: sum(looks) == JOB_BATCH_SIZE - 1)
        assert sum(map(bool, looks)) <= (now() - began) / DEQUEUE_DELAY_PER_JOB_SECONDS + 1
        await until_empty(monitor)


async def test_what_is_queued_is_heard_once_for_each_look(
    database: PostgresDatabase, database_url: str
) -> None:
    """Else the news of a flood would pile up, as looks are paced (6)."""
    connection = await asyncpg.connect(database_url)
    driver = FilteringDriver(connection)
    statements, heard = WorkerQueries.create(driver, lambda: False), list[str]()
    await driver.add_listener(PGQUEUER_NAMES["channel"], lambda payload: heard.append(str(payload)))

    async def queue(*jobs: Job) -> None:
        for job in jobs:
            await enqueue(database, job)
        # What is sent in its turn arrives in its turn.
        await connection.execute("SELECT pg_notify($1, 'last')", PGQUEUER_NAMES["channel"])
        await wait_until(lambda: "last" in heard)
        heard.remove("last")

    async def look() -> None:
        kinds: Any = {"welcome-mail": EntrypointExecutionParameter(0)}
        await statements.dequeue(
            JOB_BATCH_SIZE, kinds, uuid4(), MAX_CONCURRENT_JOBS, timedelta(seconds=6)
        )

    try:
        await queue(*make_jobs(5))
        assert len(heard) == 1
        await look()
        await queue(*make_jobs(5))
        assert len(heard) == 2
    finally:
        await connection.close()


async def test_only_what_an_event_says_itself_counts(database_url: str) -> None:
    """However it is spaced, and whatever is in its other fields; the end of jobs is not heard."""
    connection = await asyncpg.connect(database_url)
    heard: list[str] = []
    driver = FilteringDriver(connection)
    await driver.add_listener("here", lambda payload: heard.append(str(payload)))
    mentions = json.dumps({"type": "other", "about": '"operation" : "delete"'})
    told = ['{"operation":"delete"}', '{"operation":"insert"}', '{ "operation": "insert" }']
    try:
        for payload in (*told, mentions, "no JSON", "[]"):
            await connection.execute("SELECT pg_notify('here', $1)", payload)
        await wait_until(lambda: "[]" in heard)
    finally:
        await connection.close()
    assert heard == [told[1], mentions, "no JSON", "[]"]


async def test_an_error_of_the_worker_is_no_lost_connection(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is logged as what it is, with its traceback, and the worker begins anew."""
    ends = [LookupError(), None]
    make = WorkerQueries.create

    def fail_once(*args: Any) -> WorkerQueries:
        if (error := ends.pop(0)) is not None:
            raise error
        return make(*args)

    async def do(_: Job, __: JobContext) -> None:
        return

    monkeypatch.setattr(WorkerQueries, "create", fail_once)
    monkeypatch.setattr("referral.adapters.jobs.worker.RESTART_DELAY_SECONDS", 0.01)
    await enqueue(database, *make_jobs(1))
    with capture_logs() as logs:
        async with work(do):
            await until_empty(monitor)
    found = [line for line in logs if line["event"].startswith("worker ")]
    assert [(line["event"], line["log_level"]) for line in found] == [
        ("worker failed, and begins anew", "error")
    ]
    assert found[0]["exc_info"]


async def test_a_backlog_is_not_taken_at_leisure(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a look left jobs behind, the next one comes at once (6)."""

    async def do(_: Job, __: JobContext) -> None:
        pass

    monkeypatch.setattr(queries, "PACE_SECONDS", 600)
    monkeypatch.setattr(queries, "MAX_PACE_SECONDS", 600)
    await enqueue(database, *make_jobs(4 * JOB_BATCH_SIZE))
    async with work(do):
        await until_empty(monitor)


async def test_a_worker_that_is_full_of_slow_jobs_does_others_too(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """As many as there is room for, though it is room for no batch (6)."""
    gate = asyncio.Event()
    slow, quick = make_jobs(MAX_CONCURRENT_JOBS - 2), make_jobs(20)
    started: list[Job] = []

    async def do(job: Job, _: JobContext) -> None:
        started.append(job)
        if job in slow:
            await gate.wait()

    async with work(do):
        await enqueue(database, *slow)
        await wait_until(lambda: len(started) == len(slow))
        await enqueue(database, *quick)
        await wait_until(lambda: len(started) == len(slow) + len(quick))
        gate.set()
        await until_empty(monitor)


async def test_a_stopped_worker_gives_back_what_does_not_finish(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits a little for what runs, and no longer (6)."""
    monkeypatch.setattr(execution, "GRACE_SECONDS", 0.3)
    started: list[JobContext] = []

    async def do(_: Job, run: JobContext) -> None:
        started.append(run)
        await asyncio.Event().wait()

    async with asyncio.timeout(60), work(do):
        await enqueue(database, *make_jobs(3))
        await wait_until(lambda: len(started) == 3)
    assert len(await monitor.list_jobs("waiting", 9)) == 3


async def test_a_stopped_worker_lets_finish_what_does(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """A job that ends within the grace is done, and once."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def do(_: Job, __: JobContext) -> None:
        started.set()
        await gate.wait()

    async with work(do) as worker:
        await enqueue(database, *make_jobs(1))
        await started.wait()
        worker.stop()
        gate.set()
    assert await is_empty(monitor)


async def test_an_endless_attempt_is_ended(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has its time (6)."""
    monkeypatch.setattr(execution, "JOB_SECONDS", 0.2)

    async def do(_: Job, run: JobContext) -> None:
        if run.attempt == 0:
            await asyncio.Event().wait()

    async with work(do):
        await enqueue(database, *make_jobs(1))
        await until_empty(monitor)


async def test_the_log_is_pruned(
    database: PostgresDatabase, monitor: JobAdmin, database_url: str
) -> None:
    """What is older goes, the rest stays (6)."""
    await enqueue(database, *make_jobs(2))
    await execute(database_url, "UPDATE pgqueuer_log SET created = now() - interval '9 days' "
                                "WHERE id = (SELECT min(id) FROM pgqueuer_log)")  # fmt: skip
    async with database.begin() as records:
        assert not await records.jobs.prune(datetime.now(UTC) - timedelta(days=7))
    connection = await asyncpg.connect(monitor.url)
    assert await connection.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
    await connection.close()


async def test_a_second_job_of_which_one_is_enough_is_skipped(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """While the first waits and while it runs; the transaction goes on (8)."""
    gate, started = asyncio.Event(), asyncio.Event()

    async def do(_: Job, __: JobContext) -> None:
        started.set()
        await gate.wait()

    await enqueue(database, PruneJob(), PruneJob())
    assert len(await monitor.list_jobs("waiting", 9)) == 1
    async with work(do):
        await started.wait()
        await enqueue(database, PruneJob())
        assert await monitor.list_jobs("waiting", 9) == []
        gate.set()
        await until_empty(monitor)


async def test_a_periodic_job_fires_once_however_many_workers_run(
    database_url: str, monitor: JobAdmin, work: StartWorker
) -> None:
    """It is a job like any other, tried again when it fails (9)."""
    failures: list[JobContext] = []
    done: list[JobContext] = []

    async def do(job: Job, run: JobContext) -> None:
        assert job == PruneJob()
        if not failures:
            failures.append(run)
            raise OSError
        done.append(run)

    every_second = {"pruning": "* * * * * *"}
    connection = await asyncpg.connect(database_url)
    began = await connection.fetchval("SELECT now()")
    async with work(do, **every_second), work(do, **every_second), work(do, **every_second):
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


async def test_a_job_that_fails_for_good_is_held_until_an_operator_acts(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """With its traceback; put back, it is done, and discarded, it is gone."""
    broken = True

    async def do(_: Job, __: JobContext) -> None:
        if broken:
            raise MailRefused("550")

    async with work(do):
        await enqueue(database, *make_jobs(1))
        held = await until_held(monitor)
        (job,) = await monitor.list_jobs("held", 9)
        assert job.error == "MailRefused: 550"
        assert "Traceback" in job.traceback
        broken = False
        await monitor.retry([held])
        await until_empty(monitor)
        broken = True
        await enqueue(database, *make_jobs(1))
        assert await monitor.discard([await until_held(monitor)]) == 1
        assert await is_empty(monitor)


async def test_the_last_attempt_holds_the_job(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Retries end."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)

    async def do(_: Job, __: JobContext) -> None:
        raise OSError

    async with work(do):
        await enqueue(database, *make_jobs(1))
        await until_held(monitor)
    (job,) = await monitor.list_jobs("held", 9)
    assert (job.attempts, job.error) == (1, "OSError: ")


@pytest.fixture
def second_failure_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold a job that has failed twice, and wait for nothing in between."""
    monkeypatch.setattr(execution, "MAX_FAILURES", 2)
    monkeypatch.setattr(execution, "FIRST_WAIT", timedelta(milliseconds=1))


@pytest.mark.usefixtures("second_failure_holds")
async def test_waiting_is_no_failure(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither for the last attempt nor for how long the next one waits."""
    backed_off: list[int] = []
    ends: list[Exception] = [
        RescheduleJob(timedelta()),
        RescheduleJob(timedelta()),
        OSError(),
        RescheduleJob(timedelta()),
    ]

    def note(failures: int) -> timedelta:
        backed_off.append(failures)
        return timedelta()

    async def do(_: Job, run: JobContext) -> None:
        raise ends[run.attempt] if run.attempt < len(ends) else LookupError

    monkeypatch.setattr(execution, "backoff", note)
    async with work(do):
        await enqueue(database, *make_jobs(1))
        await until_held(monitor)
    (job,) = await monitor.list_jobs("held", 9)
    assert (job.attempts, job.error) == (4, "LookupError: ")
    assert backed_off == [0]


@pytest.mark.usefixtures("second_failure_holds")
async def test_the_end_of_a_worker_is_no_failure(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often workers are restarted, a job has all its attempts left."""
    monkeypatch.setattr(execution, "GRACE_SECONDS", 0.01)
    runs: list[JobContext] = []

    async def hang(_: Job, run: JobContext) -> None:
        runs.append(run)
        await asyncio.Event().wait()

    async def fail(_: Job, run: JobContext) -> None:
        runs.append(run)
        raise OSError

    await enqueue(database, *make_jobs(1))
    for attempt in range(2):
        async with work(hang):
            await wait_until(lambda attempt=attempt: len(runs) > attempt)  # type: ignore[misc]
    async with work(fail):
        await until_held(monitor)
    assert [run.attempt for run in runs] == [0, 1, 2, 3]


@pytest.mark.usefixtures("second_failure_holds")
@pytest.mark.parametrize("way", ["referral jobs retry", "the web page"])
async def test_a_job_that_was_put_back_has_all_its_attempts_again(
    database: PostgresDatabase, database_url: str, monitor: JobAdmin, work: StartWorker, way: str
) -> None:
    """Also where the first thing that happens then is no failure."""
    runs: list[JobContext] = []

    async def do(_: Job, run: JobContext) -> None:
        runs.append(run)
        if len(runs) == 3:
            raise RescheduleJob(timedelta())
        raise OSError

    async with work(do):
        await enqueue(database, *make_jobs(1))
        held = await until_held(monitor)
        if way == "the web page":
            connection = await asyncpg.connect(database_url)
            ids = [JobId(held)]
            await make_queries(AsyncpgDriver(connection)).requeue_jobs(ids)
            await connection.close()
        else:
            await monitor.retry([held])
        await wait_until(lambda: len(runs) == 5)
        await until_held(monitor)
    assert [run.attempt for run in runs] == [0, 1, 0, 1, 2]
    assert [dict(run.counters) for run in runs] == [{}, {"failures": 1}, {}, {}, {"failures": 1}]


async def test_a_job_knows_what_was_counted_before(
    database: PostgresDatabase, database_url: str, monitor: JobAdmin, work: StartWorker
) -> None:
    """By each counter; what the job took along from its request stays."""
    ends = [
        RescheduleJob(timedelta(), "asked"),
        OSError(),
        RescheduleJob(timedelta(), "asked"),
        RescheduleJob(timedelta()),
    ]
    runs: list[JobContext] = []

    async def do(_: Job, run: JobContext) -> None:
        runs.append(run)
        raise ends[run.attempt] if run.attempt < len(ends) else RescheduleJob(timedelta(hours=1))

    with bound_contextvars(request_id="joined"):
        await enqueue(database, *make_jobs(1))
    async with work(do):
        await wait_until(lambda: len(runs) == 5)
        await until_retried(monitor)
    assert dict(runs[-1].counters) == {"asked": 2, "failures": 1}
    connection = await asyncpg.connect(database_url)
    kept = await connection.fetchval("SELECT headers ->> 'request_id' FROM pgqueuer")
    await connection.close()
    assert kept == "joined"


async def test_why_a_job_is_tried_again_is_logged(
    database: PostgresDatabase, monitor: JobAdmin, work: StartWorker
) -> None:
    """By the types of the error and of what it came from; their texts may hold an address."""
    ends = [
        Unavailable("ann@example.com"),
        RescheduleJob(timedelta()),
        MailRefused("ann@example.com"),
    ]

    async def do(_: Job, run: JobContext) -> None:
        lost = Unavailable()
        lost.__cause__ = ConnectionRefusedError("ann@example.com")
        raise ends[run.attempt] from lost

    with capture_logs() as logs:
        async with work(do):
            await enqueue(database, *make_jobs(1))
            await until_held(monitor)
    told = [(line["outcome"], line.get("cause")) for line in logs if line["event"] == "job"]
    assert told == [
        ("again", "Unavailable from ConnectionRefusedError"),
        ("again", "RescheduleJob from Unavailable from ConnectionRefusedError"),
        ("held", "MailRefused from Unavailable from ConnectionRefusedError"),
    ]
    assert "ann@example.com" not in str(logs)


async def test_a_job_that_cannot_be_put_back_is_taken_up_again(
    database: PostgresDatabase,
    monitor: JobAdmin,
    work: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that is away for a moment holds no job after its first failure."""
    lost = [asyncpg.ConnectionDoesNotExistError("connection was closed")]
    runs: list[JobContext] = []
    retry = Queries.retry_job

    async def fail_once(*args: Any) -> None:
        if lost:
            raise lost.pop()
        await retry(*args)

    async def do(_: Job, run: JobContext) -> None:
        runs.append(run)
        if len(runs) == 1:
            raise OSError

    monkeypatch.setattr(Queries, "retry_job", fail_once)
    async with work(do, heartbeat=timedelta(seconds=1)):
        await enqueue(database, *make_jobs(1))
        await wait_until(lambda: len(runs) == 2)
        await until_empty(monitor)
    assert not lost


def test_the_names_of_the_tables_do_not_come_from_the_environment() -> None:
    """Pgqueuer reads them from variables as common as CHANNEL."""
    program = (
        "from referral.adapters.jobs.queue import SETTINGS\n"
        "print(SETTINGS.channel, SETTINGS.trigger)"
    )
    strange = {"CHANNEL": "other", "TRIGGER": "other", "PGQUEUER_PREFIX": "other"}
    told = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], env=os.environ | strange, capture_output=True, check=True
    )
    assert told.stdout.decode().split() == [PGQUEUER_NAMES["channel"], PGQUEUER_NAMES["trigger"]]
