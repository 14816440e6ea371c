"""Requests with an idempotency key, in PostgreSQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import idempotency_records
from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused

RESPONSE_COLUMNS = ("status", "location", "body")
"""The columns of a kept response, which have the names that the web layer gives its parts."""


class PostgresIdempotencyRepository:
    """The table of answered requests. A key is held by an advisory lock, which waits for nobody."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def find(
        self, key: bytes, fingerprints: tuple[bytes, ...], since: datetime
    ) -> StoredResponse | None:
        """See the port."""
        query = select(idempotency_records).where(
            idempotency_records.c.key == key, idempotency_records.c.created_at >= since
        )
        row = (await self._session.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        if row["fingerprint"] not in fingerprints:
            raise IdempotencyKeyReused
        return {name: row[name] for name in RESPONSE_COLUMNS}

    async def acquire(
        self, request: IdempotentRequest[Any], since: datetime
    ) -> StoredResponse | None:
        """See the port."""
        number = int.from_bytes(request.key[:8], signed=True)
        held = await self._session.execute(select(func.pg_try_advisory_xact_lock(number)))
        if not held.scalar_one():
            raise IdempotencyKeyInUse
        this = idempotency_records.c.key == request.key
        await self._session.execute(
            delete(idempotency_records).where(this, idempotency_records.c.created_at < since)
        )
        # A statement of its own: what was committed before the lock was free is seen by it.
        return await self.find(request.key, request.fingerprints, since)

    async def save(
        self,
        request: IdempotentRequest[Any],
        response: StoredResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        """See the port."""
        row = {
            "key": request.key,
            "fingerprint": request.fingerprints[0],
            "user_id": user_id,
            "created_at": now,
        }
        await self._session.execute(insert(idempotency_records).values(**row, **response))

    async def delete(self, user_id: UUID) -> None:
        """See the port."""
        await self._session.execute(
            delete(idempotency_records).where(idempotency_records.c.user_id == user_id)
        )

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(
            self._session, idempotency_records, idempotency_records.c.created_at < before
        )
