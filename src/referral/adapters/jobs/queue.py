"""Jobs into pgqueuer's tables, in the transaction of the fact that they follow from."""

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

from referral.adapters.jobs.context import propagation_headers
from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.core.entities.jobs import (
    CodeMailJob,
    ConfirmationMailJob,
    EnrichProfileJob,
    InvalidateLookupJob,
    Job,
    PasswordResetMailJob,
    PruneJob,
    ReferralMailJob,
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
"""The names that the migration made: left alone, pgqueuer reads them from variables of the
environment as common as CHANNEL and TRIGGER.
"""

JOB_TYPES: dict[str, type[Job]] = {
    "welcome-mail": WelcomeMailJob,
    "referral-mail": ReferralMailJob,
    "code-mail": CodeMailJob,
    "confirmation-mail": ConfirmationMailJob,
    "reset-mail": PasswordResetMailJob,
    "verifying": VerifyEmailJob,
    "enriching": EnrichProfileJob,
    "clearing": InvalidateLookupJob,
    "pruning": PruneJob,
}
"""Job types by their names in the queue; a name stays as long as a row of the queue may have it."""

_JOB_NAMES = {kind: name for name, kind in JOB_TYPES.items()}
_ENVIRONMENT_BUILDER = QueryBuilderEnvironment(PGQUEUER_SETTINGS)
_QUEUE_BUILDER = QueryQueueBuilder(PGQUEUER_SETTINGS)
_SCHEDULER_BUILDER = QuerySchedulerBuilder(PGQUEUER_SETTINGS)

# The two of pgqueuer's tables that are pruned; not of our metadata, since pgqueuer defines them.
_log = Table(
    "pgqueuer_log", MetaData(), Column("id", BigInteger, primary_key=True),
    Column("created", DateTime(timezone=True)),
)  # fmt: skip
_statistics = Table(
    "pgqueuer_statistics", MetaData(), Column("id", BigInteger, primary_key=True),
    Column("created", DateTime(timezone=True)),
)  # fmt: skip


class SessionDriver:
    """Run pgqueuer's statements in the transaction of a session.

    Only what is needed to enqueue is here: a session hears nothing.
    """

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run a statement and return its rows."""
        return [dict(row) for row in await self._session.fetch_sql(query, *args)]

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement that returns no rows."""
        return await self._session.execute_sql(query, *args)


class PostgresJobQueue:
    """The queue, for those who put something in."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def enqueue(self, *jobs: Job) -> None:
        """See the port. A duplicate is skipped: raising would break the transaction."""
        driver = cast("Driver", SessionDriver(self._session))
        await make_queries(driver).enqueue(
            [_JOB_NAMES[type(job)] for job in jobs],
            [msgspec.json.encode(job) for job in jobs],
            [0] * len(jobs),
            execute_after=[initial_delay(job) for job in jobs],
            dedupe_key=[dedupe_key(job) for job in jobs],
            headers=[propagation_headers()] * len(jobs),
            on_conflict="skip",
        )

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        log = await prune(self._session, _log, _log.c.created < before)
        return await prune(self._session, _statistics, _statistics.c.created < before) or log


def make_queries(driver: Driver, queries_type: type[Queries] = Queries) -> Queries:
    """Return pgqueuer's statements for the tables that the migration made."""
    return queries_type(
        driver, qbe=_ENVIRONMENT_BUILDER, qbq=_QUEUE_BUILDER, qbs=_SCHEDULER_BUILDER
    )


def dedupe_key(job: Job) -> str | None:
    """Return what a job of which one at a time is enough shares with its like."""
    return "pruning" if isinstance(job, PruneJob) else None


def decode_job(name: str, payload: bytes | None) -> Job:
    """Return the job that stands in the queue."""
    return msgspec.json.decode(payload or b"{}", type=JOB_TYPES[name])
