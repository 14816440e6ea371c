"""What an operator sees of the jobs, and may do about them."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg
import msgspec
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.domain.types import JobId

from referral.adapters.jobs.executor import RESET_COUNTERS
from referral.adapters.jobs.queue import make_queries

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


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many jobs of a kind there are; `done` is of the last hour."""

    kind: str
    waiting: int
    running: int
    held: int
    oldest_waiting: datetime | None
    done: int


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job as an operator sees it; `trace` is of its last failure."""

    id: int
    kind: str
    status: str
    attempts: int
    created: datetime
    execute_after: datetime
    error: str
    traceback: str


class StoredTraceback(msgspec.Struct):
    """What pgqueuer keeps of a failure."""

    exception_type: str
    exception_message: str
    traceback: str


class JobAdmin:
    """Looks at the jobs in a database, and puts back or discards those held or waiting."""

    def __init__(self, url: str) -> None:
        """Take the database's address."""
        self.url = url

    async def stats(self) -> list[QueueStats]:
        """Count the jobs of each kind."""
        connection = await self._connect()
        try:
            done = {row["kind"]: row["jobs"] for row in await connection.fetch(COMPLETED_LAST_HOUR)}
            found = {row["kind"]: dict(row) for row in await connection.fetch(QUEUE_COUNTS)}
        finally:
            await connection.close()
        zeros = {"waiting": 0, "running": 0, "held": 0, "oldest_waiting": None}
        return [
            QueueStats(**({"kind": kind} | zeros | found.get(kind, {})), done=done.get(kind, 0))
            for kind in sorted(done.keys() | found.keys())
        ]

    async def list_jobs(self, status: str, limit: int) -> list[ListedJob]:
        """List jobs that are `waiting`, `running` or `held`, the oldest first."""
        connection = await self._connect()
        try:
            rows = await connection.fetch(JOBS_BY_STATUS, JOB_STATUSES[status], limit)
        finally:
            await connection.close()
        return [_to_listed_job(status, dict(row)) for row in rows]

    async def retry(self, ids: list[int]) -> None:
        """Put held jobs back, as if they had never been tried."""
        connection = await self._connect()
        try:
            driver = AsyncpgDriver(connection)
            await driver.execute(RESET_COUNTERS, ids)
            await make_queries(driver).requeue_jobs([JobId(one) for one in ids])
        finally:
            await connection.close()

    async def discard(self, ids: list[int]) -> int:
        """Delete jobs that are held or waiting; return how many there were."""
        connection = await self._connect()
        try:
            rows = await connection.fetch(
                "SELECT id FROM pgqueuer WHERE id = ANY($1::bigint[]) AND status <> 'picked'", ids
            )
            found = [JobId(row["id"]) for row in rows]
            await make_queries(AsyncpgDriver(connection)).mark_job_as_cancelled(found)
        finally:
            await connection.close()
        return len(found)

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            self.url, timeout=QUERY_TIMEOUT_SECONDS, command_timeout=QUERY_TIMEOUT_SECONDS
        )


def _to_listed_job(status: str, row: dict[str, object]) -> ListedJob:
    traceback = row.pop("traceback")
    trace = msgspec.json.decode(str(traceback), type=StoredTraceback) if traceback else None
    error = f"{trace.exception_type}: {trace.exception_message}" if trace else ""
    details = {"status": status, "error": error, "traceback": trace.traceback if trace else ""}
    return ListedJob(**(row | details))  # type: ignore[arg-type]  # the columns are its fields
