"""Requests with an idempotency key, in PostgreSQL."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from referral.adapters.postgres.tables import attempts
from referral.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from referral.core.model import Answer, Attempt

SWEEP = 100
"""How many old records one request takes away; it makes one itself."""


class PostgresAttempts:
    """The table of answered requests. A key is held by an advisory lock, which waits for nobody."""

    def __init__(self, session: AsyncSession) -> None:
        """Work within a session."""
        self._session = session

    async def claim(self, attempt: Attempt[Any], since: datetime) -> Answer | None:
        """See the port."""
        number = int.from_bytes(attempt.key[:8], signed=True)
        held = await self._session.execute(select(func.pg_try_advisory_xact_lock(number)))
        if not held.scalar_one():
            raise IdempotencyKeyInUse
        this = attempts.c.key == attempt.key
        await self._session.execute(delete(attempts).where(this, attempts.c.created_at < since))
        # A statement of its own: what was committed before the lock was free is seen by it.
        found = await self._session.execute(select(attempts).where(this))
        row = found.mappings().one_or_none()
        if row is None:
            return None
        if row["fingerprint"] not in attempt.fingerprints:
            raise IdempotencyKeyReused
        return msgspec.convert(row, Answer)

    async def keep(
        self, attempt: Attempt[Any], answer: Answer, user_id: UUID | None, now: datetime
    ) -> None:
        """See the port."""
        row = {
            "key": attempt.key,
            "fingerprint": attempt.fingerprints[0],
            "user_id": user_id,
            "created_at": now,
            "status": answer.status,
            "location": answer.location,
            "body": answer.body,
        }
        await self._session.execute(insert(attempts).values(**row))

    async def forget(self, *, user_id: UUID | None = None, before: datetime | None = None) -> None:
        """See the port. Two who sweep at once do not wait for each other."""
        if user_id is not None:
            await self._session.execute(delete(attempts).where(attempts.c.user_id == user_id))
        if before is not None:
            old = select(attempts.c.key).where(attempts.c.created_at < before).limit(SWEEP)
            swept = old.with_for_update(skip_locked=True)
            await self._session.execute(delete(attempts).where(attempts.c.key.in_(swept)))
