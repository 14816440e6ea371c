"""The worker: runs the jobs of pgqueuer's tables, in a server process or in a process of its own.

It also replaces defaults of pgqueuer 1.6 that lose or repeat jobs; each replacement has a test.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog
from pgqueuer.core.applications import PgQueuer
from pgqueuer.core.executors import EntrypointExecutorParameters
from pgqueuer.domain.errors import FailingListenerError
from pgqueuer.domain.models import Schedule
from pgqueuer.domain.types import Channel

from referral.adapters.jobs.executor import JobRunner
from referral.adapters.jobs.propagation import error_chain
from referral.adapters.jobs.queue import (
    JOB_TYPES,
    PGQUEUER_NAMES,
    PRUNING,
    WEBHOOK_DELIVERIES,
    make_queries,
)
from referral.adapters.jobs.worker_queries import (
    BATCHES_AT_ONCE,
    FilteringDriver,
    WorkerQueries,
)
from referral.adapters.postgres.engine import QuickClosingConnection
from referral.adapters.postgres.errors import NoPrimaryError, errors_as_unavailable
from referral.adapters.postgres.primary import PrimaryConnector
from referral.core.errors import Unavailable
from referral.core.ports.system import JobHandler

POLL_INTERVAL = timedelta(seconds=1)
"""Interval between two polls: retries, and jobs that an operator retries, send no notification."""

HEARTBEAT_TIMEOUT = timedelta(seconds=6)
"""Time after which another worker takes over the jobs of a worker that was killed."""

RESTART_DELAY_SECONDS = 1.0
DATABASE_TIMEOUT_SECONDS = 10.0
SERVER_SETTINGS = {
    "application_name": "referral worker",
    # This connection writes the progress of jobs alone: after a crash of the server a job may run
    # again, and none is lost.
    "synchronous_commit": "off",
    "jit": "off",
}

PRUNE_SCHEDULE = "17 * * * *"
"""Cron expression of the deletion of old rows."""


@dataclass(frozen=True, slots=True)
class WorkerProfile:
    """The jobs of a worker, by their names in the queue, and its limits.

    A worker dequeues `batch_size` jobs at once, and runs two batches at once. `timeout_seconds` is
    the time limit of one attempt. With `quarantine`, jobs of a crashed worker run one at a time.
    """

    job_names: Collection[str]
    batch_size: int
    timeout_seconds: float
    quarantine: bool = True


WEBHOOK_WORKER = WorkerProfile(
    {WEBHOOK_DELIVERIES}, batch_size=64, timeout_seconds=60, quarantine=False
)
"""Deliveries have a worker of their own: slow receivers must not hold up mails. They have no
quarantine: one after the other, the receivers that are dead would hold up those that are not, and a
job that was held would be enqueued again.
"""

MAIN_WORKER = WorkerProfile(
    JOB_TYPES.keys() - WEBHOOK_WORKER.job_names, batch_size=20, timeout_seconds=60
)


class JobWorker:
    """Runs jobs until it is stopped, and reconnects when it loses its connection."""

    def __init__(
        self,
        database: PrimaryConnector | str,
        handler: JobHandler,
        profile: WorkerProfile = MAIN_WORKER,
        *,
        heartbeat_timeout: timedelta = HEARTBEAT_TIMEOUT,
        prune_schedule: str = PRUNE_SCHEDULE,
    ) -> None:
        """Take the database, not behind a pooler: LISTEN does not work through one."""
        self._connector = PrimaryConnector.of(database)
        self._heartbeat_timeout = heartbeat_timeout
        self._prune_schedule = prune_schedule
        self._profile = profile
        self._runner = JobRunner(handler, profile.timeout_seconds, quarantine=profile.quarantine)
        self._stopping = asyncio.Event()
        self._application: PgQueuer | None = None

    async def run(self) -> None:
        """Run jobs until `stop` is called."""
        log = structlog.get_logger()
        while not self._stopping.is_set():
            try:
                with errors_as_unavailable():
                    await self._run_application()
            except (Unavailable, FailingListenerError) as error:
                if not self._stopping.is_set():
                    log.warning("worker lost its connection", cause=_describe(error))
            except Exception:
                log.exception("worker failed and restarts")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_DELAY_SECONDS)

    def stop(self) -> None:
        """Take no more jobs; running jobs finish within a grace period or return to the queue.

        Cancelling `run` instead would cancel the jobs.
        """
        self._stopping.set()
        self._runner.begin_shutdown()
        if self._application is not None:
            self._application.shutdown.set()

    async def _run_application(self) -> None:
        connection = await self._connector.connect(
            connection_class=QuickClosingConnection,
            timeout=DATABASE_TIMEOUT_SECONDS,
            command_timeout=DATABASE_TIMEOUT_SECONDS,
            server_settings=SERVER_SETTINGS,
        )
        try:
            self._application = self._make_application(FilteringDriver(connection))
            if self._stopping.is_set():
                return
            await self._application.run(
                dequeue_timeout=POLL_INTERVAL,
                batch_size=self._profile.batch_size,
                max_concurrent_tasks=BATCHES_AT_ONCE * self._profile.batch_size,
                shutdown_on_listener_failure=True,
                heartbeat_timeout=self._heartbeat_timeout,
            )
        finally:
            connection.terminate()

    def _make_application(self, driver: FilteringDriver) -> PgQueuer:
        batch_size = self._profile.batch_size
        queries = WorkerQueries.create(driver, self._stopping.is_set, batch_size)
        application = PgQueuer(driver, Channel(PGQUEUER_NAMES["channel"]), queries=queries)
        parameters = EntrypointExecutorParameters(0, _unused, on_failure="hold")
        for name in self._profile.job_names:
            application.qm.register_executor(name, self._runner.executor(parameters, queries))
        if PRUNING in self._profile.job_names:
            self._schedule_pruning(application, driver)
        return application

    def _schedule_pruning(self, application: PgQueuer, driver: FilteringDriver) -> None:
        async def enqueue_pruning(_: Schedule) -> None:
            # A job, since pgqueuer retries jobs, and only logs the failure of a schedule.
            await make_queries(driver).enqueue(
                PRUNING, b"{}", dedupe_key=PRUNING, on_conflict="skip"
            )

        application.schedule(PRUNING, self._prune_schedule)(enqueue_pruning)


class Worker(Protocol):
    """Works in the background until it is stopped."""

    async def run(self) -> None:
        """Work until `stop` is called."""
        ...

    def stop(self) -> None:
        """End `run` soon."""
        ...


class WorkerGroup:
    """The workers of a process."""

    def __init__(self, *workers: Worker) -> None:
        """Take the workers."""
        self._workers = workers

    async def run(self) -> None:
        """Work until `stop` is called."""
        await asyncio.gather(*(worker.run() for worker in self._workers))

    def stop(self) -> None:
        """Stop all workers; see `JobWorker.stop`."""
        for worker in self._workers:
            worker.stop()


def _describe(error: Exception) -> str:
    """Describe why there is no connection; only the names of hosts are safe to log as they are."""
    no_primary = isinstance(error.__cause__, NoPrimaryError)
    return str(error.__cause__) if no_primary else error_chain(error)


async def _unused(_: object) -> None:
    """Stand in for the function that pgqueuer requires; the executor does its work."""
