"""Login sessions in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, select

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import login_sessions as table
from referral.core.entities.login_sessions import LoginSession

BY_DIGEST = table.c.digest == bindparam("digest")
ADD = insert_entity(table, LoginSession)
FIND = Statement(select(table).where(BY_DIGEST, table.c.expires_at > bindparam("now")))
LIST_ALL = Statement(
    select(table)
    .where(table.c.user_id == bindparam("user_id"))
    .order_by(table.c.created_at, table.c.digest)
)
END = Statement(delete(table).where(BY_DIGEST).returning(table.c.user_id))


@dataclass(frozen=True, slots=True)
class PostgresLoginSessionRepository:
    """The table of login sessions."""

    connection: DatabaseConnection

    async def add(self, login_session: LoginSession) -> None:
        await self.connection.execute(ADD, **values_of(login_session))

    async def find(self, digest: bytes, now: datetime) -> LoginSession | None:
        return await self.connection.fetch_entity(LoginSession, FIND, digest=digest, now=now)

    async def list_all(self, user_id: UUID) -> list[LoginSession]:
        return await self.connection.fetch_entities(LoginSession, LIST_ALL, user_id=user_id)

    async def end(self, digest: bytes) -> UUID | None:
        return await self.connection.fetch_value(UUID, END, digest=digest)

    async def prune(self, now: datetime) -> bool:
        return await self.connection.prune(table, table.c.expires_at <= now)
