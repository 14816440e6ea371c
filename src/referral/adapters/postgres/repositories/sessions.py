"""Sessions and refresh tokens in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import (
    authorization_codes,
    login_sessions,
    refresh_tokens,
    sessions,
)
from referral.core.entities.sessions import RefreshToken, Session

BY_ID = sessions.c.id == bindparam("session_id")
BY_USER = sessions.c.user_id == bindparam("user_id")
BY_DIGEST = refresh_tokens.c.digest == bindparam("digest")
SELECT_BY_TOKEN = (
    select(sessions).join(refresh_tokens, sessions.c.id == refresh_tokens.c.session_id)
).where(BY_DIGEST)

ADD = insert_entity(sessions, Session)
ADD_TOKEN = insert_entity(refresh_tokens, RefreshToken)
FIND = Statement(select(sessions).where(BY_ID))
FIND_BY_TOKEN = Statement(SELECT_BY_TOKEN)
LOCK_BY_TOKEN = Statement(SELECT_BY_TOKEN.with_for_update(of=sessions))
FIND_TOKEN = Statement(select(refresh_tokens).where(BY_DIGEST))
LIST_ALL = Statement(select(sessions).where(BY_USER).order_by(sessions.c.id))
SET_HEIR = Statement(
    update(refresh_tokens)
    .where(refresh_tokens.c.digest == bindparam("parent"), refresh_tokens.c.heir.is_(None))
    .values(heir=bindparam("heir"))
    .returning(refresh_tokens.c.heir)
)
MARK_USED = Statement(update(refresh_tokens).where(BY_DIGEST).values(used_at=bindparam("now")))
REVOKE = Statement(delete(sessions).where(BY_ID).returning(sessions.c.id))
# IS DISTINCT FROM is true for all sessions where the parameter is null.
REVOKE_ALL = Statement(
    delete(sessions)
    .where(BY_USER, sessions.c.id.is_distinct_from(bindparam("except_id")))
    .add_cte(
        delete(login_sessions).where(login_sessions.c.user_id == bindparam("user_id")).cte(),
        delete(authorization_codes)
        .where(
            authorization_codes.c.user_id == bindparam("user_id"),
            authorization_codes.c.session_id.is_(None),
        )
        .cte(),
    )
)


@dataclass(frozen=True, slots=True)
class PostgresSessionRepository:
    """The tables of sessions and of their refresh tokens."""

    connection: DatabaseConnection

    async def add(self, session: Session) -> None:
        await self.connection.execute(ADD, **values_of(session))

    async def add_token(self, token: RefreshToken) -> None:
        await self.connection.execute(ADD_TOKEN, **values_of(token))

    async def lock_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        """See the port. Reading the token after the lock shows a rotation that came before it."""
        return await self._find(LOCK_BY_TOKEN, digest)

    async def find_by_token(self, digest: bytes) -> tuple[Session, RefreshToken] | None:
        return await self._find(FIND_BY_TOKEN, digest)

    async def mark_used(self, token: RefreshToken, now: datetime) -> bool:
        if token.parent is not None:
            heir = await self.connection.fetch_value(
                bytes, SET_HEIR, parent=token.parent, heir=token.digest
            )
            if heir is None:
                return False
        await self.connection.execute(MARK_USED, digest=token.digest, now=now)
        return True

    async def find(self, session_id: UUID) -> Session | None:
        return await self.connection.fetch_entity(Session, FIND, session_id=session_id)

    async def list_all(self, user_id: UUID) -> list[Session]:
        return await self.connection.fetch_entities(Session, LIST_ALL, user_id=user_id)

    async def revoke(self, session_id: UUID) -> bool:
        return await self.connection.fetch_one(REVOKE, session_id=session_id) is not None

    async def revoke_all(self, user_id: UUID, *, except_id: UUID | None = None) -> None:
        await self.connection.execute(REVOKE_ALL, user_id=user_id, except_id=except_id)

    async def prune(self, now: datetime) -> bool:
        return await self.connection.prune(sessions, sessions.c.expires_at <= now)

    async def _find(
        self, statement: Statement, digest: bytes
    ) -> tuple[Session, RefreshToken] | None:
        session = await self.connection.fetch_entity(Session, statement, digest=digest)
        if session is None:
            return None
        token = await self.connection.fetch_entity(RefreshToken, FIND_TOKEN, digest=digest)
        return None if token is None else (session, token)
