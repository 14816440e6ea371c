"""The queue for an operator: statistics, and the jobs to retry or discard."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.domain.types import JobId

from referral.adapters.jobs.executor import RESET_COUNTERS
from referral.adapters.jobs.queue import make_queries
from referral.adapters.postgres.connection import DatabaseConnection
from referral.adapters.postgres.primary import PrimaryConnector
from referral.adapters.postgres.repositories.audit import PostgresAuditLog
from referral.adapters.system import SystemClock, SystemIdGenerator
from referral.core.entities.audit import OPERATOR, AuditAction, make_audit_record

QUERY_TIMEOUT_SECONDS = 10.0

QUEUE_COUNTS = """
SELECT entrypoint AS kind,
    count(*) FILTER (WHERE status = 'queued') AS waiting,
    count(*) FILTER (WHERE status = 'picked') AS running,
    count(*) FILTER (WHERE status = 'failed') AS held,
    min(created) FILTER (WHERE status = 'queued') AS oldest_waiting
FROM pgqueuer GROUP BY entrypoint ORDER BY entrypoint
"""

COMPLETED_LAST_HOUR = """
SELECT entrypoint AS kind, count(*) AS jobs FROM pgqueuer_log
WHERE status = 'successful' AND created > now() - interval '1 hour'
GROUP BY entrypoint ORDER BY entrypoint
"""

JOBS_BY_STATUS = """
SELECT job.id, job.entrypoint AS kind, job.status::text AS status, job.attempts, job.created,
    job.execute_after, log.traceback
FROM pgqueuer AS job LEFT JOIN LATERAL (
    SELECT traceback FROM pgqueuer_log
    WHERE job_id = job.id AND traceback IS NOT NULL ORDER BY id DESC LIMIT 1
) AS log ON true
WHERE job.status::text = $1 ORDER BY job.id LIMIT $2
"""

JOB_STATUSES = {"waiting": "queued", "running": "picked", "held": "failed"}
"""pgqueuer's status for each status of the commands."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The number of jobs of one kind by status; `done` counts the last hour."""

    kind: str
    waiting: int
    running: int
    held: int
    oldest_waiting: datetime | None
    done: int


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job for an operator; `error` and `traceback` are those of its last failure, or empty."""

    id: int
    kind: str
    status: str
    attempts: int
    created: datetime
    execute_after: datetime
    error: str
    traceback: str


class StoredTraceback(msgspec.Struct):
    """A failure as pgqueuer's log stores it."""

    exception_type: str
    exception_message: str
    traceback: str


class JobAdmin:
    """Reads the queue, and retries or discards its jobs."""

    def __init__(self, url: str) -> None:
        """Take the database's URL."""
        self.url = url

    async def stats(self) -> list[QueueStats]:
        """Count the jobs of each kind."""
        async with self._connection() as connection:
            done = {row["kind"]: row["jobs"] for row in await connection.fetch(COMPLETED_LAST_HOUR)}
            queued = {row["kind"]: dict(row) for row in await connection.fetch(QUEUE_COUNTS)}
        zeros = {"waiting": 0, "running": 0, "held": 0, "oldest_waiting": None}
        return [
            QueueStats(**({"kind": kind} | zeros | queued.get(kind, {})), done=done.get(kind, 0))
            for kind in sorted(done.keys() | queued.keys())
        ]

    async def list_jobs(self, status: str, limit: int) -> list[ListedJob]:
        """Return the jobs that are `waiting`, `running` or `held`, oldest first."""
        async with self._connection() as connection:
            rows = await connection.fetch(JOBS_BY_STATUS, JOB_STATUSES[status], limit)
        return [_to_listed_job(status, dict(row)) for row in rows]

    async def retry(self, ids: list[int]) -> None:
        """Return held jobs to the queue, with their attempts at zero."""
        async with self._transaction() as connection:
            driver = AsyncpgDriver(connection.driver)
            await _record(connection, AuditAction.JOB_RETRIED, ids)
            await driver.execute(RESET_COUNTERS, ids)
            await make_queries(driver).requeue_jobs([JobId(job_id) for job_id in ids])

    async def discard(self, ids: list[int]) -> list[int]:
        """Delete held and waiting jobs; return the ids of those that were found."""
        async with self._transaction() as connection:
            rows = await connection.fetch_sql(
                "SELECT id FROM pgqueuer WHERE id = ANY($1::bigint[]) AND status <> 'picked'", ids
            )
            found = [JobId(row["id"]) for row in rows]
            await _record(connection, AuditAction.JOB_DISCARDED, found)
            await make_queries(AsyncpgDriver(connection.driver)).mark_job_as_cancelled(found)
        return list(found)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[DatabaseConnection]:
        async with self._connection() as driver:
            connection = DatabaseConnection(driver)
            async with connection.transaction():
                yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await PrimaryConnector(self.url).connect(
            timeout=QUERY_TIMEOUT_SECONDS, command_timeout=QUERY_TIMEOUT_SECONDS
        )
        try:
            yield connection
        finally:
            await connection.close()


async def _record(
    connection: DatabaseConnection, action: AuditAction, job_ids: Sequence[int]
) -> None:
    """Add a record for each job to the audit log."""
    audit = PostgresAuditLog(connection)
    clock, id_generator = SystemClock(), SystemIdGenerator()
    for job_id in job_ids:
        now = clock.now()
        random_bits = id_generator.new().int
        await audit.add(make_audit_record(now, random_bits, OPERATOR, action, str(job_id)))


def _to_listed_job(status: str, row: dict[str, object]) -> ListedJob:
    stored = row.pop("traceback")
    failure = msgspec.json.decode(str(stored), type=StoredTraceback) if stored else None
    details = {
        "status": status,
        "error": f"{failure.exception_type}: {failure.exception_message}" if failure else "",
        "traceback": failure.traceback if failure else "",
    }
    return ListedJob(**(row | details))  # type: ignore[arg-type]  # the columns are its fields
