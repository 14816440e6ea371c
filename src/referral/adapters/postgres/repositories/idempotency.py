"""Requests with an idempotency key, in PostgreSQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import attempts
from referral.core.entities.idempotency import IdempotentRequest, KeptResponse
from referral.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused

RESPONSE = ("status", "location", "body")
"""The columns of a kept response, which have the names that the web layer gives its parts."""


class PostgresIdempotencyRecords:
    """The table of answered requests. A key is held by an advisory lock, which waits for nobody."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def find(
        self, key: bytes, fingerprints: tuple[bytes, ...], since: datetime
    ) -> KeptResponse | None:
        """See the port."""
        query = select(attempts).where(attempts.c.key == key, attempts.c.created_at >= since)
        row = (await self._session.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        if row["fingerprint"] not in fingerprints:
            raise IdempotencyKeyReused
        return {name: row[name] for name in RESPONSE}

    async def claim(self, attempt: IdempotentRequest[Any], since: datetime) -> KeptResponse | None:
        """See the port."""
        number = int.from_bytes(attempt.key[:8], signed=True)
        held = await self._session.execute(select(func.pg_try_advisory_xact_lock(number)))
        if not held.scalar_one():
            raise IdempotencyKeyInUse
        this = attempts.c.key == attempt.key
        await self._session.execute(delete(attempts).where(this, attempts.c.created_at < since))
        # A statement of its own: what was committed before the lock was free is seen by it.
        return await self.find(attempt.key, attempt.fingerprints, since)

    async def keep(
        self,
        attempt: IdempotentRequest[Any],
        answer: KeptResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        """See the port."""
        row = {
            "key": attempt.key,
            "fingerprint": attempt.fingerprints[0],
            "user_id": user_id,
            "created_at": now,
        }
        await self._session.execute(insert(attempts).values(**row, **answer))

    async def forget(self, user_id: UUID) -> None:
        """See the port."""
        await self._session.execute(delete(attempts).where(attempts.c.user_id == user_id))

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(self._session, attempts, attempts.c.created_at < before)
