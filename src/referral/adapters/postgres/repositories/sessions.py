"""Logins in PostgreSQL."""

from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from referral.adapters.postgres.connection import DatabaseSession, Query, values_of
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import refresh_tokens, sessions
from referral.core.entities.sessions import RefreshToken, Session

ADD = Query(
    insert(sessions).values({field.name: bindparam(field.name) for field in fields(Session)})
)
ADD_TOKEN = Query(
    insert(refresh_tokens).values(
        {field.name: bindparam(field.name) for field in fields(RefreshToken)}
    )
)


class PostgresSessionRepository:
    """The tables of sessions and of their refresh tokens."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, session: Session) -> None:
        """See the port."""
        await self._session.fetch(ADD, **values_of(session))

    async def add_token(self, token: RefreshToken) -> None:
        """See the port."""
        await self._session.fetch(ADD_TOKEN, **values_of(token))

    async def lock_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """See the port. The token is read after the lock, so that a rotation before it shows."""
        return await self._find(digest, lock=True)

    async def find_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """See the port."""
        return await self._find(digest, lock=False)

    async def mark_used(self, token: RefreshToken, now: datetime) -> bool:
        """See the port."""
        if token.parent is not None and not await self._succeed(token.parent, token.digest):
            return False
        which = refresh_tokens.c.digest == token.digest
        await self._session.execute(update(refresh_tokens).where(which).values(used_at=now))
        return True

    async def _succeed(self, parent: bytes, heir: bytes) -> bool:
        which = refresh_tokens.c.digest == parent, refresh_tokens.c.heir.is_(None)
        made = (
            update(refresh_tokens).where(*which).values(heir=heir).returning(refresh_tokens.c.heir)
        )
        return (await self._session.execute(made)).scalar_one_or_none() is not None

    async def revoke(self, session_id: UUID) -> None:
        """See the port."""
        await self._session.execute(delete(sessions).where(sessions.c.id == session_id))

    async def prune(self, now: datetime) -> bool:
        """See the port."""
        return await prune(self._session, sessions, sessions.c.expires_at <= now)

    async def revoke_all(self, user_id: UUID, *, except_id: UUID | None = None) -> None:
        """See the port."""
        which = [sessions.c.user_id == user_id]
        if except_id is not None:
            which.append(sessions.c.id != except_id)
        await self._session.execute(delete(sessions).where(*which))

    async def find(self, session_id: UUID) -> Session | None:
        """See the port."""
        found = await self._session.execute(select(sessions).where(sessions.c.id == session_id))
        row = found.mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Session)

    async def list_all(self, user_id: UUID) -> list[Session]:
        """See the port."""
        query = select(sessions).where(sessions.c.user_id == user_id).order_by(sessions.c.id)
        rows = await self._session.execute(query)
        return [msgspec.convert(row, Session) for row in rows.mappings()]

    async def _find(self, digest: bytes, *, lock: bool) -> tuple[Session, RefreshToken] | None:
        belongs = sessions.c.id == refresh_tokens.c.session_id
        query = select(sessions).join(refresh_tokens, belongs)
        query = query.where(refresh_tokens.c.digest == digest)
        query = query.with_for_update(of=sessions) if lock else query
        session = (await self._session.execute(query)).mappings().one_or_none()
        if session is None:
            return None
        query = select(refresh_tokens).where(refresh_tokens.c.digest == digest)
        token = (await self._session.execute(query)).mappings().one_or_none()
        if token is None:
            return None
        return msgspec.convert(session, Session), msgspec.convert(token, RefreshToken)
