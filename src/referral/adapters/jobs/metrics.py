"""Figures about the queue, asked of the database, which knows of every worker's jobs."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

from sqlalchemy import RowMapping, text

from referral.adapters.jobs.admin import QUEUE_COUNTS
from referral.adapters.observability.samples import Sample
from referral.adapters.postgres.database import PostgresDatabase
from referral.core.errors import Unavailable

QUEUE_METRICS_TTL_SECONDS = 5.0
"""How long an answer is good for: several may scrape."""

QUERY_TIMEOUT_SECONDS = 1.0
"""How long a scrape waits for the database, in seconds."""

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
"""How attempts of the last minute ended: what was taken up, and what came next."""

OUTCOME_BY_STATUS = {"successful": "done", "queued": "again", "failed": "held"}
DURATION_QUANTILES = ("0.5", "0.95")


class QueueMetrics:
    """How the queue is. It never fails, but then has nothing to tell."""

    def __init__(self, database: PostgresDatabase) -> None:
        """Take the database."""
        self._database = database
        self._cached: list[Sample] = []
        self._expires_at = 0.0
        self._lock = asyncio.Lock()

    async def __call__(self) -> list[Sample]:
        """Tell the figures, which may be some seconds old."""
        async with self._lock:
            if self._expires_at <= time.monotonic():
                self._cached = await self._query()
                self._expires_at = time.monotonic() + QUEUE_METRICS_TTL_SECONDS
        return self._cached

    async def _query(self) -> list[Sample]:
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(QUERY_TIMEOUT_SECONDS), self._database.read() as records:
                counts = (await records.session.execute(text(QUEUE_COUNTS))).mappings().all()
                outcomes = (await records.session.execute(text(ATTEMPT_OUTCOMES))).mappings().all()
            told = [*map(_count_samples, counts), *map(_outcome_samples, outcomes)]
            return [Sample("referral_database_up", (), 1), *(one for many in told for one in many)]
        return [Sample("referral_database_up", (), 0)]


def _count_samples(row: RowMapping) -> Iterator[Sample]:
    for state in ("waiting", "running", "held"):
        yield Sample("referral_jobs", (row["kind"], state), row[state])
    oldest = row["oldest_waiting"]
    age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0
    yield Sample("referral_jobs_oldest_waiting_seconds", (row["kind"],), max(age, 0))


def _outcome_samples(row: RowMapping) -> Iterator[Sample]:
    if row["status"] is not None:
        outcome = OUTCOME_BY_STATUS.get(row["status"], "dropped")
        yield Sample("referral_jobs_ended", (row["kind"], outcome), row["jobs"])
        return
    for quantile, seconds in zip(DURATION_QUANTILES, row["seconds"], strict=True):
        yield Sample("referral_job_seconds", (row["kind"], quantile), float(seconds))
