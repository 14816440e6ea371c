"""Figures by day in PostgreSQL.

Triggers on `users`, `codes` and `referrals` append what a statement changes to
`statistics_changes`, in its transaction. `add_changes` moves that to `daily_statistics` and
`referrer_statistics`. A reader takes both in one statement, so the figures are exact at any time,
and no two registrations wait for one row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from referral.adapters.postgres.connection import DatabaseConnection, to_entity
from referral.adapters.postgres.joined_periods import JoinedPeriods
from referral.core.entities.statistics import (
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)

LOCK_KEY = 7_215_904_534
"""Key of the advisory lock, unique in this service; revision 0022 takes it too."""

COUNT_ALL = """
SELECT date_trunc($3, day)::date AS start, sum(registered)::bigint AS registered,
    sum(referred)::bigint AS referred, sum(confirmed)::bigint AS confirmed,
    sum(rejected)::bigint AS rejected, sum(codes)::bigint AS codes
FROM (
    SELECT day, registered, referred, confirmed, rejected, codes FROM daily_statistics
    UNION ALL
    SELECT day, registered, pending + confirmed + rejected, confirmations, rejections, codes
    FROM statistics_changes
) AS figures
WHERE day >= $1 AND day < $2 GROUP BY 1
"""
COUNT_OF = """
SELECT date_trunc($3, day)::date AS start, sum(joined)::bigint AS joined,
    sum(confirmations)::bigint AS confirmed
FROM (
    SELECT start AS day, pending + confirmed + rejected AS joined, confirmations
    FROM referrer_statistics WHERE referrer_id = $4 AND period = 'day'
    UNION ALL
    SELECT day, pending + confirmed + rejected, confirmations
    FROM statistics_changes WHERE referrer_id = $4
) AS figures
WHERE day >= $1 AND day < $2 GROUP BY 1
"""

# One period is in the order of its index: the order is by the columns, and not by their casts.
# The few referrers with new changes are looked up apart.
LIST_OF_PERIOD = """
WITH changed AS MATERIALIZED (
    SELECT referrer_id, sum(confirmed) AS confirmed, sum(pending) AS pending,
        sum(rejected) AS rejected
    FROM statistics_changes WHERE referrer_id IS NOT NULL AND day >= $2 AND day < $3
    GROUP BY referrer_id
)
SELECT * FROM (
    (SELECT referrer_id AS user_id, confirmed::bigint, pending::bigint, rejected::bigint
    FROM referrer_statistics AS stored
    WHERE period = $1 AND start = $2 AND confirmed + pending + rejected > 0
        AND referrer_id NOT IN (SELECT referrer_id FROM changed)
    ORDER BY stored.confirmed DESC, stored.referrer_id DESC LIMIT $4)
    UNION ALL
    SELECT changed.referrer_id, (changed.confirmed + coalesce(stored.confirmed, 0))::bigint,
        (changed.pending + coalesce(stored.pending, 0))::bigint,
        (changed.rejected + coalesce(stored.rejected, 0))::bigint
    FROM changed LEFT JOIN LATERAL (
        SELECT confirmed, pending, rejected FROM referrer_statistics
        WHERE referrer_id = changed.referrer_id AND period = $1 AND start = $2 LIMIT 1
    ) AS stored ON true
) AS figures
WHERE confirmed + pending + rejected > 0
ORDER BY confirmed DESC, user_id DESC LIMIT $4
"""
# Parts of a day are counted by the rows themselves. OFFSET 0 keeps the planner, which does not know
# how short the ranges are, from joining by a scan of the whole table.
LIST_OF_PERIODS = """
SELECT referrer_id AS user_id, sum(confirmed)::bigint AS confirmed,
    sum(pending)::bigint AS pending, sum(rejected)::bigint AS rejected
FROM (
    SELECT referrer_id, confirmed, pending, rejected
    FROM unnest($1::text[], $2::date[], $3::date[]) AS wanted (period, first, last), LATERAL (
        SELECT referrer_id, confirmed, pending, rejected FROM referrer_statistics
        WHERE period = wanted.period AND start >= first AND start < last OFFSET 0) AS stored
    UNION ALL
    SELECT referrer_id, confirmed, pending, rejected FROM statistics_changes
    WHERE referrer_id IS NOT NULL AND day >= $4 AND day < $5
    UNION ALL
    SELECT referrer_id, (status = 'confirmed')::int, (status = 'pending')::int,
        (status = 'rejected')::int
    FROM unnest($6::timestamptz[], $7::timestamptz[]) AS wanted (since, until), LATERAL (
        SELECT referrer_id, status FROM referrals
        WHERE joined_at >= since AND joined_at < until OFFSET 0) AS joined
) AS figures
GROUP BY referrer_id HAVING sum(confirmed + pending + rejected) > 0
ORDER BY 2 DESC, 1 DESC LIMIT $8
"""

HAS_CHANGES = "SELECT 1 FROM statistics_changes LIMIT 1"
TRY_LOCK = f"SELECT pg_try_advisory_xact_lock({LOCK_KEY})"
ADD_CHANGES = """
WITH taken AS (
    DELETE FROM statistics_changes WHERE seq = ANY (ARRAY(
        SELECT seq FROM statistics_changes ORDER BY seq LIMIT $1))
    RETURNING *
), of_days AS (
    INSERT INTO daily_statistics AS stored (day, registered, referred, confirmed, rejected, codes)
    SELECT day, sum(registered), sum(pending + confirmed + rejected), sum(confirmations),
        sum(rejections), sum(codes)
    FROM taken GROUP BY day
    ON CONFLICT (day) DO UPDATE SET registered = stored.registered + excluded.registered,
        referred = stored.referred + excluded.referred,
        confirmed = stored.confirmed + excluded.confirmed,
        rejected = stored.rejected + excluded.rejected, codes = stored.codes + excluded.codes
), of_referrers AS (
    INSERT INTO referrer_statistics AS stored
        (referrer_id, period, start, confirmed, pending, rejected, confirmations)
    SELECT referrer_id, period, CASE period WHEN 'all' THEN '-infinity'
            ELSE date_trunc(period, day)::date END,
        sum(confirmed), sum(pending), sum(rejected), sum(confirmations)
    FROM taken, unnest('{day,month,year,all}'::text[]) AS period
    WHERE referrer_id IS NOT NULL GROUP BY 1, 2, 3
    ON CONFLICT (referrer_id, period, start) DO UPDATE SET
        confirmed = stored.confirmed + excluded.confirmed,
        pending = stored.pending + excluded.pending,
        rejected = stored.rejected + excluded.rejected,
        confirmations = stored.confirmations + excluded.confirmations
)
SELECT count(*) FROM taken
"""


@dataclass(frozen=True, slots=True)
class PostgresStatisticsRepository:
    """The figures by day, and the changes that are not added to them yet."""

    connection: DatabaseConnection

    async def count_all(self, wanted: StatisticsRange) -> Mapping[date, Statistics]:
        rows = await self.connection.fetch_sql(COUNT_ALL, wanted.first, wanted.end, wanted.interval)
        return {row["start"]: to_entity(Statistics, row) for row in rows}

    async def count_of(
        self, referrer_id: UUID, wanted: StatisticsRange
    ) -> Mapping[date, UserStatistics]:
        rows = await self.connection.fetch_sql(
            COUNT_OF, wanted.first, wanted.end, wanted.interval, referrer_id
        )
        return {row["start"]: to_entity(UserStatistics, row) for row in rows}

    async def list_referrers(self, wanted: ReferrerFilter, limit: int) -> list[ReferrerFigures]:
        joined = JoinedPeriods.of(wanted)
        rows = (
            await self.connection.fetch_sql(LIST_OF_PERIOD, *joined.single, limit)
            if joined.single
            else await self.connection.fetch_sql(LIST_OF_PERIODS, *joined.columns, limit)
        )
        return [to_entity(ReferrerFigures, row) for row in rows]

    async def add_changes(self, limit: int) -> int:
        if not await self.connection.fetch_sql(HAS_CHANGES):
            return 0
        if not (await self.connection.fetch_sql(TRY_LOCK))[0][0]:
            return 0
        [(added,)] = await self.connection.fetch_sql(ADD_CHANGES, limit)
        return int(added)
