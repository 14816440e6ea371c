"""Metrics of the queue, events and webhooks, read from the database, which knows all workers."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg

from referral.adapters.jobs.admin import QUEUE_COUNTS
from referral.adapters.observability.samples import Sample
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.event_metrics import read_event_samples
from referral.core.errors import Unavailable

QUEUE_METRICS_TTL_SECONDS = 5.0
"""Time for which several scrapers get the same samples."""

QUERY_TIMEOUT_SECONDS = 1.0
"""Time that a scrape waits for the database."""

ATTEMPT_OUTCOMES = """
WITH steps AS (
    SELECT entrypoint AS kind, status::text AS status, created,
        created - lag(created) OVER job AS took, lag(status::text) OVER job AS before
    FROM pgqueuer_log WHERE created > now() - interval '3 minutes'
    WINDOW job AS (PARTITION BY job_id ORDER BY id)
)
SELECT kind, status, count(*) AS jobs,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM took)) AS seconds
FROM steps
WHERE before = 'picked' AND status <> 'picked' AND created > now() - interval '1 minute'
GROUP BY GROUPING SETS ((kind), (kind, status))
"""
"""Outcomes and durations of the attempts that ended in the last minute."""

OUTCOME_BY_STATUS = {"successful": "done", "queued": "again", "failed": "held"}
DURATION_QUANTILES = ("0.5", "0.95")


class QueueMetrics:
    """Samples of the queue; while the database is unavailable, `referral_database_up 0` alone."""

    def __init__(self, database: PostgresDatabase) -> None:
        """Take the database of the queue."""
        self._database = database
        self._cached: list[Sample] = []
        self._expires_at = 0.0
        self._lock = asyncio.Lock()

    async def __call__(self) -> list[Sample]:
        """Return the samples, at most `QUEUE_METRICS_TTL_SECONDS` old."""
        async with self._lock:
            if self._expires_at <= time.monotonic():
                self._cached = await self._query()
                self._expires_at = time.monotonic() + QUEUE_METRICS_TTL_SECONDS
        return self._cached

    async def _query(self) -> list[Sample]:
        samples = [Sample("referral_database_up", (), 1)]
        with suppress(Unavailable, TimeoutError):
            async with (
                asyncio.timeout(QUERY_TIMEOUT_SECONDS),
                self._database.read() as repositories,
            ):
                for row in await repositories.connection.fetch_sql(QUEUE_COUNTS):
                    samples.extend(_count_samples(row))
                for row in await repositories.connection.fetch_sql(ATTEMPT_OUTCOMES):
                    samples.extend(_outcome_samples(row))
                samples += await read_event_samples(repositories.connection)
            return samples
        return [Sample("referral_database_up", (), 0)]


def _count_samples(row: asyncpg.Record) -> Iterator[Sample]:
    for state in ("waiting", "running", "held"):
        yield Sample("referral_jobs", (row["kind"], state), row[state])
    oldest = row["oldest_waiting"]
    age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0
    yield Sample("referral_jobs_oldest_waiting_seconds", (row["kind"],), max(age, 0))


def _outcome_samples(row: asyncpg.Record) -> Iterator[Sample]:
    if row["status"] is not None:
        outcome = OUTCOME_BY_STATUS.get(row["status"], "dropped")
        yield Sample("referral_jobs_ended", (row["kind"], outcome), row["jobs"])
        return
    for quantile, seconds in zip(DURATION_QUANTILES, row["seconds"], strict=True):
        yield Sample("referral_job_seconds", (row["kind"], quantile), float(seconds))
