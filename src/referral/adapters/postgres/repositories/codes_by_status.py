"""The list of all codes of one status.

The status depends on the clock, so no index holds the codes of a status in the order of their ids.
The index `ix_codes_expiry_day` holds them by group, in which they are in that order: by the status
that they have until they expire, and by the day on which they expire. A page is merged from the
groups; only in that of today the others are read and dropped. There are few days: a code lives for
a year at most, unless it was imported.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from uuid import UUID

from referral.adapters.postgres.connection import DatabaseConnection, to_entity
from referral.core.entities.codes import Code, CodeStatus

NEIGHBOURS = 1000
"""Codes that are read before the index is: where a status is frequent, a page is among them."""

COLUMNS = ", ".join(field.name for field in fields(Code))
STATUS = (
    "(CASE WHEN uses >= max_uses THEN 'exhausted' WHEN enabled THEN 'active' ELSE 'inactive' END)"
)
"""The status of a code that has not expired."""

DAY = "((expires_at AT TIME ZONE 'UTC')::date)"
TODAY = "($1::timestamptz AT TIME ZONE 'UTC')::date"
GREATEST_ID = UUID(int=2**128 - 1)

NEIGHBOURS_SQL = f"""
SELECT {COLUMNS} FROM (
    SELECT * FROM codes WHERE id {{before}} $2 ORDER BY id DESC LIMIT $5
) AS codes
WHERE deleted_at IS NULL AND {STATUS} = ANY($4) AND expires_at {{compare}} $1
ORDER BY id DESC LIMIT $3
"""

# The rows of a page are in the groups whose newest codes are the newest. With an equality of days
# the planner could take the index of the ids instead, and read all codes of other days.
GROUPS_SQL = f"""
WITH RECURSIVE expiry_days (status, day) AS (
    SELECT known.status, first.day FROM unnest($4::text[]) AS known (status), LATERAL (
        SELECT {DAY} AS day FROM codes
        WHERE deleted_at IS NULL AND {STATUS} = known.status AND {DAY} {{from_}} {TODAY}
        ORDER BY {DAY} {{order}} LIMIT 1
    ) AS first
    UNION ALL
    SELECT known.status, next.day FROM expiry_days AS known, LATERAL (
        SELECT {DAY} AS day FROM codes
        WHERE deleted_at IS NULL AND {STATUS} = known.status AND {DAY} {{beyond}} known.day
        ORDER BY {DAY} {{order}} LIMIT 1
    ) AS next
), newest (status, day) AS (
    SELECT known.status, known.day FROM expiry_days AS known, LATERAL (
        SELECT id FROM codes WHERE {{in_group}} ORDER BY {DAY} DESC, id DESC LIMIT 1
    ) AS code
    ORDER BY code.id DESC LIMIT $3
)
SELECT page.* FROM newest AS known, LATERAL (
    SELECT {COLUMNS} FROM codes WHERE {{in_group}} ORDER BY {DAY} DESC, id DESC LIMIT $3
) AS page
ORDER BY page.id DESC LIMIT $3
"""
IN_GROUP = f"""deleted_at IS NULL AND {STATUS} = known.status
    AND {DAY} >= known.day AND ({DAY}, id) {{before}} (known.day, $2::uuid)
    AND expires_at {{compare}} $1"""


@cache
def _statements(*, expired: bool, is_first: bool) -> tuple[str, str]:
    """Return how to read the page among the neighbours, and by the index."""
    compared = {"before": "<=" if is_first else "<", "compare": "<=" if expired else ">"}
    days = (
        {"from_": "<=", "beyond": "<", "order": "DESC"}
        if expired
        else {"from_": ">=", "beyond": ">", "order": "ASC"}
    )
    in_group = IN_GROUP.format(**compared)
    return NEIGHBOURS_SQL.format(**compared), GROUPS_SQL.format(in_group=in_group, **days)


@dataclass(frozen=True, slots=True)
class CodesByStatus:
    """Reads pages of the codes that are not deleted, newest first."""

    connection: DatabaseConnection

    async def list_page(
        self, status: CodeStatus, now: datetime, *, after: UUID | None, limit: int
    ) -> list[Code]:
        """Return the codes that have the status at `now`."""
        expired = status is CodeStatus.EXPIRED
        until_expiry = [each for each in CodeStatus if each is not status] if expired else [status]
        arguments = (now, after or GREATEST_ID, limit, until_expiry)
        neighbours, groups = _statements(expired=expired, is_first=after is None)
        rows = await self.connection.fetch_sql(neighbours, *arguments, NEIGHBOURS)
        if len(rows) < limit:
            rows = await self.connection.fetch_sql(groups, *arguments)
        return [to_entity(Code, row) for row in rows]
