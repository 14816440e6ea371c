"""The worker: takes jobs from pgqueuer's tables and does them, in the API process or alone.

What pgqueuer 1.6 leaves open by default is settled here; each point has a test.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg
import structlog
from pgqueuer.core.applications import PgQueuer
from pgqueuer.core.executors import EntrypointExecutorParameters
from pgqueuer.domain.errors import FailingListenerError
from pgqueuer.domain.models import Schedule
from pgqueuer.domain.types import Channel

from referral.adapters.jobs.context import error_chain
from referral.adapters.jobs.executor import JobRunner
from referral.adapters.jobs.queue import JOB_TYPES, PGQUEUER_NAMES, make_queries
from referral.adapters.jobs.worker_queries import (
    JOB_BATCH_SIZE,
    MAX_CONCURRENT_JOBS,
    FilteringDriver,
    WorkerQueries,
)
from referral.adapters.postgres.outages import errors_as_unavailable
from referral.core.errors import Unavailable
from referral.core.ports.system import JobHandler

POLL_INTERVAL = timedelta(seconds=1)
"""How often to look: jobs tried again or put back by an operator are not announced."""

HEARTBEAT_TIMEOUT = timedelta(seconds=6)
"""When the job of a worker that was killed is taken up by another one."""

RESTART_DELAY_SECONDS = 1.0
DATABASE_TIMEOUT_SECONDS = 10.0
SERVER_SETTINGS = {
    "application_name": "referral worker",
    # What this connection writes is how far jobs have come: a server that crashes may have one
    # done again, and loses none.
    "synchronous_commit": "off",
    "jit": "off",
}

PRUNE_SCHEDULE = "17 * * * *"
"""When old rows are deleted, as cron says it."""


class JobWorker:
    """Does jobs until it is stopped; a lost connection is made anew."""

    def __init__(
        self,
        url: str,
        handler: JobHandler,
        *,
        heartbeat_timeout: timedelta = HEARTBEAT_TIMEOUT,
        prune_schedule: str = PRUNE_SCHEDULE,
    ) -> None:
        """Take the database's address, a direct one, since LISTEN passes through no pooler."""
        self._url = url
        self._heartbeat_timeout = heartbeat_timeout
        self._prune_schedule = prune_schedule
        self._runner = JobRunner(handler)
        self._stopping = asyncio.Event()
        self._application: PgQueuer | None = None

    async def run(self) -> None:
        """Do jobs until `stop`."""
        log = structlog.get_logger()
        while not self._stopping.is_set():
            try:
                with errors_as_unavailable():
                    await self._run_application()
            except (Unavailable, FailingListenerError) as error:
                if not self._stopping.is_set():
                    log.warning("worker lost its connection", cause=error_chain(error))
            except Exception:
                log.exception("worker failed, and begins anew")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_DELAY_SECONDS)

    def stop(self) -> None:
        """Take no more jobs; what runs may finish within a few seconds or is given back.

        Cancelling `run` instead would cancel the jobs as well.
        """
        self._stopping.set()
        self._runner.begin_shutdown()
        if self._application is not None:
            self._application.shutdown.set()

    async def _run_application(self) -> None:
        connection = await asyncpg.connect(
            self._url,
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
                batch_size=JOB_BATCH_SIZE,
                max_concurrent_tasks=MAX_CONCURRENT_JOBS,
                shutdown_on_listener_failure=True,
                heartbeat_timeout=self._heartbeat_timeout,
            )
        finally:
            connection.terminate()

    def _make_application(self, driver: FilteringDriver) -> PgQueuer:
        queries = WorkerQueries.create(driver, self._stopping.is_set)
        application = PgQueuer(driver, Channel(PGQUEUER_NAMES["channel"]), queries=queries)
        parameters = EntrypointExecutorParameters(0, _unused, on_failure="hold")
        for name in JOB_TYPES:
            application.qm.register_executor(name, self._runner.executor(parameters, queries))

        async def enqueue_pruning(_: Schedule) -> None:
            # A job, since what fails in a schedule itself is logged and never tried again.
            await make_queries(driver).enqueue(
                "pruning", b"{}", dedupe_key="pruning", on_conflict="skip"
            )

        application.schedule("pruning", self._prune_schedule)(enqueue_pruning)
        return application


async def _unused(_: object) -> None:
    """Stand where pgqueuer wants a function; the executor does the work."""
