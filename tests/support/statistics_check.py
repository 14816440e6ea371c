"""Compares the statistics with the rows that they count."""

from collections import Counter
from datetime import date, timedelta
from typing import Any

import asyncpg

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.entities.statistics import (
    Interval,
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)
from referral.core.use_cases.statistics import AddStatisticsChanges
from tests.support.fakes.security import FakeFingerprinter

TIMES_SQL = """
SELECT 'registered' AS what, NULL::uuid AS referrer_id, created_at AS at FROM users
UNION ALL SELECT 'codes', NULL, created_at FROM codes
UNION ALL SELECT 'referred', referrer_id, joined_at FROM referrals
UNION ALL SELECT 'confirmed', referrer_id, confirmed_at FROM referrals
    WHERE confirmed_at IS NOT NULL
UNION ALL SELECT 'rejected', referrer_id, rejected_at FROM referrals WHERE rejected_at IS NOT NULL
"""
REFERRERS_SQL = """
SELECT referrer_id AS user_id, count(*) FILTER (WHERE status = 'confirmed') AS confirmed,
    count(*) FILTER (WHERE status = 'pending') AS pending,
    count(*) FILTER (WHERE status = 'rejected') AS rejected
FROM referrals GROUP BY 1 ORDER BY 2 DESC, 1 DESC
"""
UNDECIDED_SQL = """
SELECT count(*) FROM referrals WHERE status = 'confirmed' AND confirmed_at IS NULL
    OR status = 'rejected' AND rejected_at IS NULL
"""


async def check_statistics(database_url: str) -> int:
    """Compare all figures with all rows, before and after changes are added up.

    Returns the number of rows. Nobody else may write meanwhile.
    """
    connection, engine = await asyncpg.connect(database_url), make_engine(database_url)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    try:
        times = await connection.fetch(TIMES_SQL)
        assert await connection.fetchval(UNDECIDED_SQL) == 0
        referrers = [ReferrerFigures(*row) for row in await connection.fetch(REFERRERS_SQL)]
        for _ in range(2):
            await _compare(database, times, referrers)
            await AddStatisticsChanges(database)()
        assert await connection.fetchval("SELECT count(*) FROM statistics_changes") == 0
    finally:
        await connection.close()
        await engine.dispose()
    return len(times)


async def _compare(
    database: PostgresDatabase, times: list[asyncpg.Record], referrers: list[ReferrerFigures]
) -> None:
    found: dict[date, Counter[str]] = {}
    for row in times:
        found.setdefault(row["at"].date(), Counter())[row["what"]] += 1
    if not found:
        return
    wanted = StatisticsRange(min(found), max(found) + timedelta(days=1), Interval.DAY)
    async with database.read() as repositories:
        statistics = repositories.statistics
        counted = _with_figures(await statistics.count_all(wanted))
        assert counted == {day: Statistics(**counts) for day, counts in found.items()}
        assert await statistics.list_referrers(ReferrerFilter(), len(referrers) + 1) == referrers
        for referrer in referrers[:20]:
            own: dict[date, Counter[str]] = {}
            for row in times:
                if row["referrer_id"] == referrer.user_id and row["what"] != "rejected":
                    name = {"referred": "joined"}.get(row["what"], row["what"])
                    own.setdefault(row["at"].date(), Counter())[name] += 1
            expected = {day: UserStatistics(**counts) for day, counts in own.items()}
            assert _with_figures(await statistics.count_of(referrer.user_id, wanted)) == expected


def _with_figures(rows: Any) -> Any:
    return {day: row for day, row in rows.items() if row not in {Statistics(), UserStatistics()}}
