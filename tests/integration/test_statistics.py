"""Statistics under concurrent writes, and the plans of their statements."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.joined_periods import JoinedPeriods
from referral.adapters.postgres.repositories.statistics import (
    COUNT_OF,
    LIST_OF_PERIOD,
    LIST_OF_PERIODS,
    LOCK_KEY,
)
from referral.core.entities.statistics import Interval, ReferrerFilter, Statistics, StatisticsRange
from referral.core.use_cases.statistics import AddStatisticsChanges
from tests.contracts.rows import make_code, make_referral, make_user
from tests.integration.test_audit_query_plans import explain
from tests.support.statistics_check import check_statistics

WRITERS, REGISTRATIONS = 4, 60
REFERRERS, DAYS = 3000, 40
START = datetime(2030, 1, 1, tzinfo=UTC)
MOST_ROWS_READ = 400
"""For a list of 100 referrers: those, and as many that have changes."""

FILL_SQL = f"""
TRUNCATE referrer_statistics, statistics_changes;
INSERT INTO referrer_statistics
SELECT lpad(to_hex(n), 32, '0')::uuid, 'day', '2030-01-01'::date + day, n % 50, 1, 1, 1
FROM generate_series(1, {REFERRERS}) n, generate_series(0, {DAYS - 1}) day;
INSERT INTO referrer_statistics
SELECT referrer_id, wanted, CASE wanted WHEN 'all' THEN '-infinity'
    ELSE date_trunc(wanted, start)::date END, sum(confirmed), 1, 1, 1
FROM referrer_statistics, unnest('{{month,year,all}}'::text[]) AS wanted
GROUP BY 1, 2, 3;
INSERT INTO statistics_changes (day, referrer_id, confirmed)
SELECT '2030-01-02', lpad(to_hex(n), 32, '0')::uuid, 1 FROM generate_series(1, 50) n
"""  # noqa: S608 - constants


async def test_figures_are_exact_while_they_change(
    database: PostgresDatabase, database_url: str
) -> None:
    """Every reader sees the committed rows once each, whatever is added up meanwhile."""
    begun = committed = 0
    owner = make_user()
    code = make_code(owner)
    async with database.begin() as repositories:
        await repositories.users.add(owner)
        await repositories.codes.add(code)
    wanted = StatisticsRange(
        code.created_at.date(), code.created_at.date() + timedelta(days=1), Interval.DAY
    )

    async def register() -> None:
        nonlocal begun, committed
        for _ in range(REGISTRATIONS):
            begun += 1
            user = make_user()
            async with database.begin() as repositories:
                await repositories.users.add(user)
                await repositories.referrals.add(make_referral(code, user))
            committed += 1

    async def read() -> None:
        while committed < WRITERS * REGISTRATIONS:
            before = committed
            async with database.read() as repositories:
                counted = await repositories.statistics.count_all(wanted)
                listed = await repositories.statistics.list_referrers(ReferrerFilter(), 2)
            figures = counted.get(wanted.first, Statistics())
            assert before <= figures.referred
            assert before <= sum(each.confirmed for each in listed) <= begun
            assert figures.confirmed <= begun

    async def add_up() -> None:
        while committed < WRITERS * REGISTRATIONS:
            await AddStatisticsChanges(database)()
            await asyncio.sleep(0)

    async def rebuild() -> None:
        connection = await asyncpg.connect(database_url)
        while committed < WRITERS * REGISTRATIONS:
            await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
            async with connection.transaction(isolation="repeatable_read"):
                await connection.execute("SELECT rebuild_statistics()")
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)
        await connection.close()

    await asyncio.gather(
        *(register() for _ in range(WRITERS)), read(), add_up(), add_up(), rebuild()
    )
    assert await check_statistics(database_url) == 2 * WRITERS * REGISTRATIONS + 2 + committed


@pytest.fixture
async def filled(database: PostgresDatabase, database_url: str) -> AsyncIterator[PostgresDatabase]:
    """Figures of many referrers, of which fifty have changes."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILL_SQL)
    await connection.execute("ANALYZE")
    yield database
    await connection.execute("TRUNCATE referrer_statistics, statistics_changes")
    await connection.close()


def read_rows(plan: list[dict[str, Any]]) -> float:
    """Return how many rows of the figures a plan read; it must have used an index."""
    scans = [node for node in plan if node.get("Relation Name") == "referrer_statistics"]
    assert {node["Node Type"] for node in scans} <= {
        *("Index Scan", "Index Only Scan", "Bitmap Heap Scan")
    }
    rows = (
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )
    return float(sum(rows))


async def test_list_of_one_period_reads_its_index(filled: PostgresDatabase) -> None:
    """All time, a year, a month or a day: it reads as many rows as it lists, and few more."""
    year, month, day = START.replace(year=2031), START.replace(month=2), START + timedelta(days=1)
    for wanted in (ReferrerFilter(), *(ReferrerFilter(START, end) for end in (year, month, day))):
        async with filled.read() as repositories:
            listed = await repositories.statistics.list_referrers(wanted, 100)
        assert len(listed) == 100
        period = JoinedPeriods.of(wanted).single
        assert period is not None
        plan = await explain(filled, (LIST_OF_PERIOD, [*period, 100]))
        assert 100 <= read_rows(plan) <= MOST_ROWS_READ


async def test_other_statements_read_an_index(filled: PostgresDatabase) -> None:
    """Several periods, and the figures of one referrer: the rows of the range and no others."""
    two_days = JoinedPeriods.of(ReferrerFilter(START, START + timedelta(days=2)))
    plan = await explain(filled, (LIST_OF_PERIODS, [*two_days.columns, 100]))
    assert read_rows(plan) == 2 * REFERRERS
    week = START.date(), START.date() + timedelta(days=7), Interval.DAY
    plan = await explain(filled, (COUNT_OF, [*week, UUID(int=7)]))
    assert read_rows(plan) == 7
