"""Idempotency keys, and the stored responses, in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, delete, func, insert, select

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.tables import idempotency_records as table
from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused

RESPONSE_COLUMNS = ("status", "location", "body")
"""The columns of a stored response: the web layer reads them by these names."""

BY_KEY = table.c.key == bindparam("key")
SINCE: BindParameter[datetime] = bindparam("since")

FIND = Statement(select(table).where(BY_KEY, table.c.created_at >= SINCE))
LOCK_KEY = Statement(select(func.pg_try_advisory_xact_lock(bindparam("lock_key"))))
DELETE_EXPIRED = Statement(delete(table).where(BY_KEY, table.c.created_at < SINCE))
SAVE = Statement(insert(table))
DELETE = Statement(delete(table).where(table.c.user_id == bindparam("user_id")))


@dataclass(frozen=True, slots=True)
class PostgresIdempotencyRepository:
    """The table of stored responses. An advisory lock, without waiting, protects a key."""

    connection: DatabaseConnection

    async def find(
        self, key: bytes, request_digests: tuple[bytes, ...], since: datetime
    ) -> StoredResponse | None:
        row = await self.connection.fetch_one(FIND, key=key, since=since)
        if row is None:
            return None
        if row["fingerprint"] not in request_digests:
            raise IdempotencyKeyReused
        return {name: row[name] for name in RESPONSE_COLUMNS}

    async def acquire(
        self, request: IdempotentRequest[Any], since: datetime
    ) -> StoredResponse | None:
        lock_key = int.from_bytes(request.key[:8], signed=True)
        if not await self.connection.fetch_value(bool, LOCK_KEY, lock_key=lock_key):
            raise IdempotencyKeyInUse
        await self.connection.execute(DELETE_EXPIRED, key=request.key, since=since)
        # A statement of its own, which sees what was committed before the lock was free.
        return await self.find(request.key, request.request_digests, since)

    async def save(
        self,
        request: IdempotentRequest[Any],
        response: StoredResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        await self.connection.execute(
            SAVE,
            key=request.key,
            fingerprint=request.request_digests[0],
            user_id=user_id,
            created_at=now,
            **response,
        )

    async def delete(self, user_id: UUID) -> None:
        await self.connection.execute(DELETE, user_id=user_id)

    async def prune(self, before: datetime) -> bool:
        return await self.connection.prune(table, table.c.created_at < before)
