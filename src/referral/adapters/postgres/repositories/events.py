"""Events in PostgreSQL: the outbox of committed changes, and the published events."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from referral.adapters.postgres.connection import DatabaseConnection, to_entity
from referral.adapters.postgres.deferred_inserts import DeferredTable
from referral.core.entities.events import Event, EventType, FeedEvent

PUBLISHING_LOCK_KEY = 7_215_904_533
"""Key of the advisory lock, unique in this service."""

PUBLISHING_LOCK_TIMEOUT = "500ms"
PRUNE_BATCH_SIZE = 2000
MAX_POSITION = 2**63 - 1
OUTBOX = DeferredTable("event_outbox", ("id", "type", "occurred_at", "data", "external_user_id"))

ADD_UNLISTED = """
INSERT INTO events (id, type, occurred_at, data) VALUES ($1, $2, $3, $4)
"""
HAS_UNPUBLISHED = "SELECT 1 FROM event_outbox ORDER BY seq LIMIT 1"
TRY_LOCK = f"SELECT pg_try_advisory_xact_lock({PUBLISHING_LOCK_KEY})"
WAIT_FOR_LOCK = f"""
SELECT set_config('lock_timeout', '{PUBLISHING_LOCK_TIMEOUT}', true),
       pg_advisory_xact_lock({PUBLISHING_LOCK_KEY})
"""
# Locked rows are skipped, and published later: an erasure is changing them. Positions are given
# in the order of the outbox.
PUBLISH = """
WITH taken AS (
    DELETE FROM event_outbox WHERE seq = ANY (ARRAY(
        SELECT seq FROM event_outbox ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING *
)
INSERT INTO events (position, id, type, occurred_at, data, external_user_id)
SELECT nextval('event_positions'), id, type, occurred_at, data, external_user_id
FROM (SELECT * FROM taken ORDER BY seq) AS ordered
RETURNING position, id, type, occurred_at, data
"""
LIST_ALL = """
SELECT position, id, type, occurred_at, data FROM events
WHERE position > $1 ORDER BY position LIMIT $2
"""
# One probe of the index of types and positions for each type. With `type = …`, PostgreSQL may also
# read the events in the order of their positions, all of them if the type is rare.
LIST_BY_TYPE = f"""
SELECT found.* FROM unnest($3::text[]) AS wanted (type), LATERAL (
    SELECT position, id, type, occurred_at, data FROM events
    WHERE (type, position) > (wanted.type, $1)
    AND (type, position) <= (wanted.type, {MAX_POSITION})
    ORDER BY type, position LIMIT $2) AS found
ORDER BY position LIMIT $2
"""  # noqa: S608 - of constants
LIST_BETWEEN = """
SELECT found.* FROM unnest($5::text[]) AS wanted (type), LATERAL (
    SELECT id, type, occurred_at, data FROM events
    WHERE type = wanted.type AND (occurred_at, id) > ($1, $2) AND occurred_at < $3
    AND position IS NOT NULL ORDER BY occurred_at, id LIMIT $4) AS found
ORDER BY occurred_at, id LIMIT $4
"""
COUNT_BETWEEN = """
SELECT count(*) FROM events
WHERE type = ANY ($3) AND occurred_at >= $1 AND occurred_at < $2 AND position IS NOT NULL
"""
WITHOUT_EXTERNAL_ID = """
SET external_user_id = NULL,
    data = jsonb_set(data::jsonb, '{external_id}', 'null')::json
WHERE external_user_id = $1
"""
PRUNE = """
DELETE FROM events WHERE id = ANY (ARRAY(
    SELECT id FROM unnest($2::text[]) AS wanted (type), LATERAL (
        SELECT id FROM events WHERE type = wanted.type AND occurred_at < $1
        ORDER BY occurred_at LIMIT $3) AS old
    LIMIT $3))
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class PostgresEventLog:
    """The tables `event_outbox` and `events`."""

    connection: DatabaseConnection

    async def add(self, *events: Event) -> None:
        await self.connection.defer(OUTBOX, *(_row(event) for event in events))

    async def add_unlisted(self, event: Event) -> None:
        await self.connection.fetch_sql(ADD_UNLISTED, *_row(event)[:4])

    async def has_unpublished(self) -> bool:
        return bool(await self.connection.fetch_sql(HAS_UNPUBLISHED))

    async def publish(self, limit: int, *, wait: bool) -> list[Event]:
        if wait:
            await self.connection.fetch_sql(WAIT_FOR_LOCK)
        elif not (await self.connection.fetch_sql(TRY_LOCK))[0][0]:
            return []
        rows = await self.connection.fetch_sql(PUBLISH, limit)
        return [to_entity(Event, row) for row in sorted(rows, key=lambda row: row["position"])]

    async def list_page(
        self, types: Collection[str] | None, *, after: int, limit: int
    ) -> list[FeedEvent]:
        rows = (
            await self.connection.fetch_sql(LIST_ALL, after, limit)
            if types is None
            else await self.connection.fetch_sql(LIST_BY_TYPE, after, limit, list(types))
        )
        return [FeedEvent(row["position"], to_entity(Event, row)) for row in rows]

    async def list_between(
        self,
        since: datetime,
        until: datetime,
        types: Collection[str],
        *,
        after: Event | None,
        limit: int,
    ) -> list[Event]:
        first = (after.occurred_at, after.id) if after else (since, UUID(int=0))
        rows = await self.connection.fetch_sql(LIST_BETWEEN, *first, until, limit, list(types))
        return [to_entity(Event, row) for row in rows]

    async def count_between(self, since: datetime, until: datetime, types: Collection[str]) -> int:
        rows = await self.connection.fetch_sql(COUNT_BETWEEN, since, until, list(types))
        return int(rows[0][0])

    async def remove_external_id(self, user_id: UUID) -> None:
        """See the port. The outbox comes first: what is published meanwhile is found after it."""
        for table in ("event_outbox", "events"):
            await self.connection.fetch_sql(f"UPDATE {table} {WITHOUT_EXTERNAL_ID}", user_id)

    async def prune(self, before: datetime) -> bool:
        deleted = await self.connection.fetch_sql(PRUNE, before, list(EventType), PRUNE_BATCH_SIZE)
        return len(deleted) == PRUNE_BATCH_SIZE


def _row(event: Event) -> tuple[object, ...]:
    data = msgspec.json.encode(event.data).decode()
    has_external_id = event.data.get("external_id") is not None
    owner = UUID(str(event.data["user_id"])) if has_external_id else None
    return event.id, event.type, event.occurred_at, data, owner
