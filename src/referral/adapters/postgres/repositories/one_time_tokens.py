"""Single-use tokens of links in mails, in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BindParameter, and_, bindparam, delete, func, or_, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import one_time_tokens as table
from referral.core.entities.email_links import OneTimeToken, TokenPurpose

BY_DIGEST = table.c.digest == bindparam("digest")
NOW: BindParameter[datetime] = bindparam("now")
VALID = and_(BY_DIGEST, table.c.purpose == bindparam("purpose"), table.c.expires_at > NOW)
FREE = or_(table.c.claimed_until.is_(None), table.c.claimed_until <= NOW)

ADD = insert_entity(table, OneTimeToken)
FIND_USER_ID = Statement(select(table.c.user_id).where(VALID))
ACQUIRE = Statement(
    update(table)
    .where(VALID, FREE)
    .values(claimed_until=bindparam("until"))
    .returning(table.c.digest)
)
RELEASE = Statement(
    update(table)
    .where(BY_DIGEST, table.c.claimed_until == bindparam("until"))
    .values(claimed_until=None)
)
CONSUME = Statement(delete(table).where(VALID).returning(table.c.user_id))
# All purposes where the parameter is null.
DELETE = Statement(
    delete(table).where(
        table.c.user_id == bindparam("user_id"),
        table.c.purpose == func.coalesce(bindparam("purpose"), table.c.purpose),
    )
)


@dataclass(frozen=True, slots=True)
class PostgresOneTimeTokenRepository:
    """The table of tokens. Using a token deletes its row: one of two concurrent uses finds it."""

    connection: DatabaseConnection

    async def add(self, token: OneTimeToken) -> None:
        await self.connection.execute(ADD, **values_of(token))

    async def find_user_id(
        self, digest: bytes, purpose: TokenPurpose, now: datetime
    ) -> UUID | None:
        return await self.connection.fetch_value(
            UUID, FIND_USER_ID, digest=digest, purpose=purpose, now=now
        )

    async def acquire(
        self, digest: bytes, purpose: TokenPurpose, now: datetime, until: datetime
    ) -> bool:
        acquired = await self.connection.fetch_value(
            bytes, ACQUIRE, digest=digest, purpose=purpose, now=now, until=until
        )
        return acquired is not None

    async def release(self, digest: bytes, until: datetime) -> None:
        await self.connection.execute(RELEASE, digest=digest, until=until)

    async def consume(self, digest: bytes, purpose: TokenPurpose, now: datetime) -> UUID | None:
        user_id = await self.connection.fetch_value(
            UUID, CONSUME, digest=digest, purpose=purpose, now=now
        )
        if user_id is not None:
            await self.delete(user_id, purpose)
        return user_id

    async def delete(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        await self.connection.execute(DELETE, user_id=user_id, purpose=purpose)

    async def prune(self, now: datetime) -> bool:
        return await self.connection.prune(table, table.c.expires_at <= now)
