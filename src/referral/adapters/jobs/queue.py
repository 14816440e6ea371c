"""The job queue: jobs are inserted into pgqueuer's tables in the transaction that causes them."""

from datetime import datetime
from typing import cast

import msgspec
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.domain.settings import DBSettings
from pgqueuer.ports.driver import Driver
from sqlalchemy import BigInteger, Column, DateTime, Table
from sqlalchemy.schema import MetaData

from referral.adapters.jobs.propagation import propagation_headers
from referral.adapters.postgres.connection import DatabaseConnection
from referral.core.entities.jobs import (
    CodeMailJob,
    ConfirmationMailJob,
    DeleteDeliveriesJob,
    DeliverWebhookJob,
    EnrichProfileJob,
    FailPendingDeliveriesJob,
    InvalidateLookupJob,
    Job,
    PasswordResetMailJob,
    PruneJob,
    ReferralMailJob,
    ReplayEventsJob,
    VerifyEmailJob,
    WelcomeMailJob,
    initial_delay,
)

PGQUEUER_NAMES = {
    "channel": "ch_pgqueuer",
    "function": "fn_pgqueuer_changed",
    "statistics_table": "pgqueuer_statistics",
    "queue_status_type": "pgqueuer_status",
    "queue_table": "pgqueuer",
    "queue_table_log": "pgqueuer_log",
    "trigger": "tg_pgqueuer_changed",
    "schedules_table": "pgqueuer_schedules",
}
PGQUEUER_SETTINGS = DBSettings.model_validate({"prefix": "", "db_schema": None, **PGQUEUER_NAMES})
"""The names of the migration. Without them pgqueuer would read names from environment variables
as common as CHANNEL and TRIGGER.
"""

PRUNING, WEBHOOK_DELIVERIES = "pruning", "webhook-deliveries"

JOB_TYPES: dict[str, type[Job]] = {
    "welcome-mail": WelcomeMailJob,
    "referral-mail": ReferralMailJob,
    "code-mail": CodeMailJob,
    "confirmation-mail": ConfirmationMailJob,
    "reset-mail": PasswordResetMailJob,
    "verifying": VerifyEmailJob,
    "enriching": EnrichProfileJob,
    "clearing": InvalidateLookupJob,
    "webhook-disabling": FailPendingDeliveriesJob,
    "webhook-deletion": DeleteDeliveriesJob,
    "webhook-replay": ReplayEventsJob,
    PRUNING: PruneJob,
    WEBHOOK_DELIVERIES: DeliverWebhookJob,
}
"""Job types by their names in the queue, in metrics and in commands: a name cannot change while the
queue may contain it.
"""

KNOWN_KEYS = """
SELECT dedupe_key FROM pgqueuer
WHERE dedupe_key = ANY($1::text[]) AND status IN ('queued', 'picked')
"""

_JOB_NAMES = {job_type: name for name, job_type in JOB_TYPES.items()}
_ENVIRONMENT_BUILDER = QueryBuilderEnvironment(PGQUEUER_SETTINGS)
_QUEUE_BUILDER = QueryQueueBuilder(PGQUEUER_SETTINGS)
_SCHEDULER_BUILDER = QuerySchedulerBuilder(PGQUEUER_SETTINGS)

# The two tables of pgqueuer that are pruned. Alembic does not compare them: pgqueuer defines them.
_LOG, _STATISTICS = (
    Table(
        name,
        MetaData(),
        Column("id", BigInteger, primary_key=True),
        Column("created", DateTime(timezone=True)),
    )
    for name in ("pgqueuer_log", "pgqueuer_statistics")
)


class TransactionDriver:
    """A pgqueuer driver that runs statements on a connection that is in a transaction.

    It implements only what enqueuing needs, so it cannot listen.
    """

    def __init__(self, connection: DatabaseConnection) -> None:
        """Take the connection of the transaction."""
        self._connection = connection

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run a statement and return its rows."""
        return [dict(row) for row in await self._connection.fetch_sql(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement that returns no rows."""
        return await self._connection.execute_sql(query, *args)


class PostgresJobQueue:
    """The queue for the code that enqueues jobs."""

    def __init__(self, connection: DatabaseConnection) -> None:
        """Take the connection of the transaction."""
        self._connection = connection

    async def enqueue(self, *jobs: Job) -> None:
        """See the port. A duplicate is skipped: an error would abort the transaction.

        Known duplicates are left out, because even an insert that is skipped wakes all workers.
        """
        jobs = await self._without_duplicates(jobs)
        if not jobs:
            return
        driver = cast("Driver", TransactionDriver(self._connection))
        await make_queries(driver).enqueue(
            [_JOB_NAMES[type(job)] for job in jobs],
            [msgspec.json.encode(job) for job in jobs],
            [0] * len(jobs),
            execute_after=[initial_delay(job) for job in jobs],
            dedupe_key=[dedupe_key(job) for job in jobs],
            headers=[propagation_headers()] * len(jobs),
            on_conflict="skip",
        )

    async def _without_duplicates(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        keys = [key for key in map(dedupe_key, jobs) if key is not None]
        if not keys:
            return jobs
        known = {row["dedupe_key"] for row in await self._connection.fetch_sql(KNOWN_KEYS, keys)}
        return tuple(job for job in jobs if dedupe_key(job) not in known)

    async def prune(self, before: datetime) -> bool:
        more_logs = await self._connection.prune(_LOG, _LOG.c.created < before)
        more_statistics = await self._connection.prune(_STATISTICS, _STATISTICS.c.created < before)
        return more_logs or more_statistics


def make_queries(driver: Driver, queries_type: type[Queries] = Queries) -> Queries:
    """Make pgqueuer's statements for the tables of the migration."""
    return queries_type(
        driver, qbe=_ENVIRONMENT_BUILDER, qbq=_QUEUE_BUILDER, qbs=_SCHEDULER_BUILDER
    )


def dedupe_key(job: Job) -> str | None:
    """Return the key that keeps a second such job out of the queue, or None."""
    match job:
        case PruneJob():
            return PRUNING
        case DeliverWebhookJob():
            return f"{WEBHOOK_DELIVERIES}:{job.webhook_id}"
    return None


def decode_job(name: str, payload: bytes | None) -> Job:
    """Return the job that the queue stores."""
    return msgspec.json.decode(payload or b"{}", type=JOB_TYPES[name])
