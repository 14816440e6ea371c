"""Webhooks, and replays of events to them, in PostgreSQL."""

from dataclasses import dataclass
from functools import cache
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import webhook_replays as replays
from referral.adapters.postgres.tables import webhooks
from referral.core.entities.webhook_deliveries import Replay
from referral.core.entities.webhooks import Webhook

COUNT_LOCK_KEY = 7_215_904_534
"""Key of the advisory lock, unique in this service."""

MUTABLE_COLUMNS = (
    "url",
    "events",
    "description",
    "enabled",
    "disabled_reason",
    "secret",
    "previous_secret",
    "previous_secret_until",
    "failing_since",
    "succeeded_attempts",
    "failed_attempts",
)
BY_ID = webhooks.c.id == bindparam("webhook_id")

ADD = insert_entity(webhooks, Webhook)
FIND = Statement(select(webhooks).where(BY_ID))
LOCK_COUNT = Statement(select(func.pg_advisory_xact_lock(COUNT_LOCK_KEY)))
COUNT = Statement(select(func.count()).select_from(webhooks))
LOCK = Statement(select(webhooks).where(BY_ID).with_for_update())
# A shared lock: a request that disables or deletes a webhook waits until the deliveries are
# created, and a webhook that was disabled meanwhile is left out.
LOCK_ENABLED = Statement(
    select(webhooks).where(webhooks.c.enabled).order_by(webhooks.c.id).with_for_update(read=True)
)
SAVE = Statement(
    update(webhooks).where(BY_ID).values({name: bindparam(name) for name in MUTABLE_COLUMNS})
)
REMOVE = Statement(delete(webhooks).where(BY_ID).returning(webhooks.c.id))

BY_REPLAY_ID = replays.c.id == bindparam("replay_id")

ADD_REPLAY = insert_entity(replays, Replay)
LOCK_REPLAY = Statement(select(replays).where(BY_REPLAY_ID).with_for_update())
SAVE_REPLAY = Statement(
    update(replays)
    .where(BY_REPLAY_ID)
    .values({name: bindparam(name) for name in ("after_occurred_at", "after_event_id")})
)
REMOVE_REPLAY = Statement(delete(replays).where(BY_REPLAY_ID))


@cache
def _list_page(*, is_first: bool) -> Statement:
    query = select(webhooks)
    if not is_first:
        query = query.where(webhooks.c.id < bindparam("after"))
    return Statement(query.order_by(webhooks.c.id.desc()).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresWebhookRepository:
    """The table of webhooks."""

    connection: DatabaseConnection

    async def add(self, webhook: Webhook) -> None:
        await self.connection.execute(ADD, **values_of(webhook))

    async def count_exclusively(self) -> int:
        await self.connection.execute(LOCK_COUNT)
        return await self.connection.fetch_value(int, COUNT) or 0

    async def find(self, webhook_id: UUID) -> Webhook | None:
        return await self.connection.fetch_entity(Webhook, FIND, webhook_id=webhook_id)

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Webhook]:
        statement = _list_page(is_first=after is None)
        return await self.connection.fetch_entities(Webhook, statement, after=after, limit=limit)

    async def lock(self, webhook_id: UUID) -> Webhook | None:
        return await self.connection.fetch_entity(Webhook, LOCK, webhook_id=webhook_id)

    async def lock_enabled(self) -> list[Webhook]:
        return await self.connection.fetch_entities(Webhook, LOCK_ENABLED)

    async def save(self, webhook: Webhook) -> None:
        await self.connection.execute(SAVE, webhook_id=webhook.id, **values_of(webhook))

    async def remove(self, webhook_id: UUID) -> bool:
        return await self.connection.fetch_one(REMOVE, webhook_id=webhook_id) is not None


@dataclass(frozen=True, slots=True)
class PostgresReplayRepository:
    """The table of replays."""

    connection: DatabaseConnection

    async def add(self, replay: Replay) -> None:
        await self.connection.execute(ADD_REPLAY, **values_of(replay))

    async def lock(self, replay_id: UUID) -> Replay | None:
        return await self.connection.fetch_entity(Replay, LOCK_REPLAY, replay_id=replay_id)

    async def save(self, replay: Replay) -> None:
        await self.connection.execute(SAVE_REPLAY, replay_id=replay.id, **values_of(replay))

    async def remove(self, replay_id: UUID) -> None:
        await self.connection.execute(REMOVE_REPLAY, replay_id=replay_id)
