"""What links in mails prove, in PostgreSQL."""

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import one_time_tokens as tokens
from referral.core.entities.email_links import OneTimeToken, TokenPurpose


class PostgresOneTimeTokenRepository:
    """The table of tokens. A row is deleted when it is used: of two who try, one finds it."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, token: OneTimeToken) -> None:
        """See the port."""
        await self._session.execute(insert(tokens).values(**asdict(token)))

    async def find_user_id(
        self, digest: bytes, purpose: TokenPurpose, now: datetime
    ) -> UUID | None:
        """See the port."""
        query = select(tokens.c.user_id).where(_is_valid(digest, purpose, now))
        return (await self._session.execute(query)).scalar_one_or_none()

    async def acquire(
        self, digest: bytes, purpose: TokenPurpose, now: datetime, until: datetime
    ) -> bool:
        """See the port."""
        is_free = or_(tokens.c.claimed_until.is_(None), tokens.c.claimed_until <= now)
        claimed = update(tokens).where(_is_valid(digest, purpose, now), is_free)
        claimed = claimed.values(claimed_until=until)
        found = await self._session.execute(claimed.returning(tokens.c.digest))
        return found.scalar_one_or_none() is not None

    async def release(self, digest: bytes, until: datetime) -> None:
        """See the port."""
        which = tokens.c.digest == digest, tokens.c.claimed_until == until
        await self._session.execute(update(tokens).where(*which).values(claimed_until=None))

    async def consume(self, digest: bytes, purpose: TokenPurpose, now: datetime) -> UUID | None:
        """See the port."""
        used = delete(tokens).where(_is_valid(digest, purpose, now)).returning(tokens.c.user_id)
        user_id: UUID | None = (await self._session.execute(used)).scalar_one_or_none()
        if user_id is not None:
            await self.delete(user_id, purpose)
        return user_id

    async def delete(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        """See the port."""
        which = [tokens.c.user_id == user_id]
        if purpose is not None:
            which.append(tokens.c.purpose == purpose)
        await self._session.execute(delete(tokens).where(*which))

    async def prune(self, now: datetime) -> bool:
        """See the port."""
        return await prune(self._session, tokens, tokens.c.expires_at <= now)


def _is_valid(digest: bytes, purpose: TokenPurpose, now: datetime) -> ColumnElement[bool]:
    return and_(tokens.c.digest == digest, tokens.c.purpose == purpose, tokens.c.expires_at > now)
