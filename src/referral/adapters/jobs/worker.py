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

from referral.adapters.jobs.context import causes_of
from referral.adapters.jobs.executor import JobRunner
from referral.adapters.jobs.queue import KINDS, PGQUEUER_NAMES, make_queries
from referral.adapters.jobs.worker_queries import (
    BATCH_SIZE,
    CONCURRENT,
    FilteringDriver,
    WorkerQueries,
)
from referral.adapters.postgres.outages import unavailable
from referral.core.errors import Unavailable
from referral.core.ports.system import JobHandler

POLL = timedelta(seconds=1)
"""How often to look: jobs tried again or put back by an operator are not announced."""

HEARTBEAT = timedelta(seconds=6)
"""When the job of a worker that was killed is taken up by another one."""

RESTART_SECONDS = 1.0
ANSWER_SECONDS = 10.0
SERVER_SETTINGS = {
    "application_name": "referral worker",
    # What this connection writes is how far jobs have come: a server that crashes may have one
    # done again, and loses none.
    "synchronous_commit": "off",
    "jit": "off",
}

PRUNING = "17 * * * *"
"""When old rows are deleted, as cron says it."""


class Worker:
    """Does jobs until it is stopped; a lost connection is made anew."""

    def __init__(
        self,
        url: str,
        do_job: JobHandler,
        *,
        heartbeat: timedelta = HEARTBEAT,
        pruning: str = PRUNING,
    ) -> None:
        """Take the database's address, a direct one, since LISTEN passes through no pooler."""
        self._url = url
        self._heartbeat = heartbeat
        self._pruning = pruning
        self._execution = JobRunner(do_job)
        self._stopping = asyncio.Event()
        self._serving: PgQueuer | None = None

    async def run(self) -> None:
        """Do jobs until `stop`."""
        log = structlog.get_logger()
        while not self._stopping.is_set():
            try:
                with unavailable():
                    await self._serve()
            except (Unavailable, FailingListenerError) as error:
                if not self._stopping.is_set():
                    log.warning("worker lost its connection", cause=causes_of(error))
            except Exception:
                log.exception("worker failed, and begins anew")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_SECONDS)

    def stop(self) -> None:
        """Take no more jobs; what runs may finish within a few seconds or is given back.

        Cancelling `run` instead would cancel the jobs as well.
        """
        self._stopping.set()
        self._execution.hurry()
        if self._serving is not None:
            self._serving.shutdown.set()

    async def _serve(self) -> None:
        connection = await asyncpg.connect(
            self._url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings=SERVER_SETTINGS,
        )
        try:
            self._serving = self._application(FilteringDriver(connection))
            if self._stopping.is_set():
                return
            await self._serving.run(
                dequeue_timeout=POLL,
                batch_size=BATCH_SIZE,
                max_concurrent_tasks=CONCURRENT,
                shutdown_on_listener_failure=True,
                heartbeat_timeout=self._heartbeat,
            )
        finally:
            connection.terminate()

    def _application(self, driver: FilteringDriver) -> PgQueuer:
        queries = WorkerQueries.over(driver, self._stopping.is_set)
        application = PgQueuer(driver, Channel(PGQUEUER_NAMES["channel"]), queries=queries)
        nothing = EntrypointExecutorParameters(0, _unused, on_failure="hold")
        for name in KINDS:
            application.qm.register_executor(name, self._execution.executor(nothing, queries))

        async def enqueue_pruning(_: Schedule) -> None:
            # A job, since what fails in a schedule itself is logged and never tried again.
            await make_queries(driver).enqueue(
                "pruning", b"{}", dedupe_key="pruning", on_conflict="skip"
            )

        application.schedule("pruning", self._pruning)(enqueue_pruning)
        return application


async def _unused(_: object) -> None:
    """Stand where pgqueuer wants a function; the executor does the work."""
