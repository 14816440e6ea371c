"""Deliveries to webhooks in PostgreSQL; rows are written in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, select, tuple_

from referral.adapters.postgres.connection import (
    DIALECT,
    PRUNE_BATCH_SIZE,
    DatabaseConnection,
    Statement,
    to_entity,
)
from referral.adapters.postgres.tables import webhook_deliveries as table
from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus
from referral.core.ports.webhooks import DueDelivery

COLUMN_NAMES = tuple(field.name for field in fields(Delivery))
COLUMNS = [table.c[name] for name in COLUMN_NAMES]
MUTABLE_COLUMNS = COLUMN_NAMES[COLUMN_NAMES.index("scheduled_for") :]
SAVED_COLUMNS = ("id", *MUTABLE_COLUMNS)

COLUMN_LIST = ", ".join(COLUMN_NAMES)
QUALIFIED_COLUMN_LIST = ", ".join(f"delivery.{name}" for name in COLUMN_NAMES)


def _arrays(names: Sequence[str]) -> str:
    """Return the parameters of `unnest`: an array for each column."""
    types = (table.c[name].type.compile(dialect=DIALECT) for name in names)
    return ", ".join(f"${number}::{each}[]" for number, each in enumerate(types, 1))


ADD = f"""
INSERT INTO webhook_deliveries ({COLUMN_LIST}) SELECT * FROM unnest({_arrays(COLUMN_NAMES)})
"""  # noqa: S608
SAVE = f"""
UPDATE webhook_deliveries AS delivery
SET {", ".join(f"{name} = saved.{name}" for name in MUTABLE_COLUMNS)}
FROM unnest({_arrays(SAVED_COLUMNS)}) AS saved ({", ".join(SAVED_COLUMNS)})
WHERE delivery.id = saved.id
"""  # noqa: S608 - nothing but names of columns
LOCK = f"""
SELECT {COLUMN_LIST} FROM webhook_deliveries WHERE id = ANY ($1) ORDER BY id FOR UPDATE
"""  # noqa: S608

# One probe of the index for each webhook: a semi-join might read all that is due.
LIST_DUE_WEBHOOKS = """
SELECT webhook.id FROM webhooks AS webhook, LATERAL (
    SELECT next_attempt_at FROM webhook_deliveries
    WHERE webhook_id = webhook.id AND next_attempt_at <= $1
    ORDER BY next_attempt_at LIMIT 1
) AS longest_due
WHERE webhook.enabled ORDER BY longest_due.next_attempt_at
"""
# The limit comes before the join, so that the cost does not depend on how many are due. A delivery
# whose event was just deleted is deleted soon, too.
LIST_DUE = f"""
SELECT {QUALIFIED_COLUMN_LIST}, event.data
FROM (
    SELECT delivery.* FROM webhook_deliveries AS delivery
    WHERE webhook_id = $1 AND next_attempt_at <= $2
    AND EXISTS (SELECT FROM webhooks WHERE id = $1 AND enabled) AND id <> ALL ($4::uuid[])
    ORDER BY next_attempt_at LIMIT $3
) AS delivery JOIN events AS event ON event.id = delivery.event_id
ORDER BY delivery.next_attempt_at
"""  # noqa: S608
FAIL_PENDING = f"""
UPDATE webhook_deliveries
SET status = CASE status WHEN 'pending' THEN 'failed' ELSE status END,
    scheduled_for = NULL, retry_requested_at = NULL,
    error = CASE status
        WHEN 'pending' THEN concat_ws(' Last attempt: ', $2::text, error) ELSE error END
WHERE id = ANY (ARRAY(
    SELECT id FROM webhook_deliveries WHERE webhook_id = $1 AND next_attempt_at IS NOT NULL
    ORDER BY next_attempt_at LIMIT {PRUNE_BATCH_SIZE}))
RETURNING id
"""  # noqa: S608
DELETE = f"""
DELETE FROM webhook_deliveries WHERE id = ANY (ARRAY(
    SELECT id FROM webhook_deliveries WHERE webhook_id = $1 ORDER BY id LIMIT {PRUNE_BATCH_SIZE}))
RETURNING id
"""  # noqa: S608

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)
BY_WEBHOOK = table.c.webhook_id == bindparam("webhook_id")
FIND = Statement(select(*COLUMNS).where(BY_WEBHOOK, table.c.id == bindparam("delivery_id")))


@cache
def _list_page(*, has_status: bool) -> Statement:
    """Return the query of a page.

    It compares rows. With `webhook_id = …`, PostgreSQL may also read the deliveries in the order of
    their ids: if the webhook was disabled long ago, those of all other webhooks come first.
    """
    filtered = (table.c.webhook_id, table.c.status) if has_status else (table.c.webhook_id,)
    wanted = [bindparam(column.name, type_=column.type) for column in filtered]
    key, after = (*filtered, table.c.id), bindparam("after", type_=table.c.id.type)
    first = bindparam("first", FIRST_ID, type_=table.c.id.type)
    query = select(*COLUMNS).where(
        tuple_(*key) < tuple_(*wanted, after), tuple_(*key) >= tuple_(*wanted, first)
    )
    return Statement(query.order_by(*(each.desc() for each in key)).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresDeliveryRepository:
    """The table of deliveries."""

    connection: DatabaseConnection

    async def add(self, deliveries: Sequence[Delivery]) -> None:
        for first in range(0, len(deliveries), PRUNE_BATCH_SIZE):
            batch = deliveries[first : first + PRUNE_BATCH_SIZE]
            await self.connection.fetch_sql(ADD, *_columns(batch, COLUMN_NAMES))

    async def find(self, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
        return await self.connection.fetch_entity(
            Delivery, FIND, webhook_id=webhook_id, delivery_id=delivery_id
        )

    async def list_page(
        self, webhook_id: UUID, *, status: DeliveryStatus | None, after: UUID | None, limit: int
    ) -> list[Delivery]:
        return await self.connection.fetch_entities(
            Delivery,
            _list_page(has_status=status is not None),
            webhook_id=webhook_id,
            status=status,
            after=after or LAST_ID,
            limit=limit,
        )

    async def list_due_webhooks(self, now: datetime) -> list[UUID]:
        rows = await self.connection.fetch_sql(LIST_DUE_WEBHOOKS, now)
        return [msgspec.convert(row["id"], UUID) for row in rows]

    async def list_due(
        self, webhook_id: UUID, now: datetime, limit: int, *, without: Sequence[UUID] = ()
    ) -> list[DueDelivery]:
        rows = await self.connection.fetch_sql(LIST_DUE, webhook_id, now, limit, list(without))
        return [DueDelivery(to_entity(Delivery, row), row["data"]) for row in rows]

    async def lock(self, delivery_ids: Sequence[UUID]) -> list[Delivery]:
        rows = await self.connection.fetch_sql(LOCK, list(delivery_ids))
        return [to_entity(Delivery, row) for row in rows]

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        await self.connection.fetch_sql(SAVE, *_columns(deliveries, SAVED_COLUMNS))

    async def fail_pending(self, webhook_id: UUID, error: str) -> bool:
        failed = await self.connection.fetch_sql(FAIL_PENDING, webhook_id, error)
        return len(failed) == PRUNE_BATCH_SIZE

    async def delete(self, webhook_id: UUID) -> bool:
        return len(await self.connection.fetch_sql(DELETE, webhook_id)) == PRUNE_BATCH_SIZE

    async def prune(self, occurred_before: datetime) -> bool:
        return await self.connection.prune(table, table.c.occurred_at < occurred_before)


def _columns(deliveries: Sequence[Delivery], names: Sequence[str]) -> list[list[object]]:
    return [[getattr(delivery, name) for delivery in deliveries] for name in names]
