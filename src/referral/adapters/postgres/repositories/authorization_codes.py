"""Authorization codes in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, bindparam, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import authorization_codes as table
from referral.core.entities.authorization_codes import AuthorizationCode, AuthorizationRequest

BY_DIGEST = table.c.digest == bindparam("digest")
ADD = insert_entity(table, AuthorizationCode)
FIND = Statement(select(table).where(BY_DIGEST))
REDEEM = Statement(
    update(table)
    .where(
        BY_DIGEST,
        table.c.session_id.is_(None),
        table.c.expires_at > bindparam("now"),
        table.c.client_id == bindparam("client_id"),
        table.c.redirect_uri == bindparam("redirect_uri"),
        table.c.code_challenge == bindparam("code_challenge"),
    )
    .values(session_id=bindparam("session_id"))
    .returning(table.c.digest)
)


@dataclass(frozen=True, slots=True)
class PostgresAuthorizationCodeRepository:
    """The table of authorization codes."""

    connection: DatabaseConnection

    async def add(self, code: AuthorizationCode) -> None:
        await self.connection.execute(ADD, **values_of(code))

    async def find(self, digest: bytes) -> AuthorizationCode | None:
        return await self.connection.fetch_entity(AuthorizationCode, FIND, digest=digest)

    async def redeem(
        self, digest: bytes, request: AuthorizationRequest, session_id: UUID, now: datetime
    ) -> bool:
        redeemed = await self.connection.fetch_one(
            REDEEM, digest=digest, session_id=session_id, now=now, **values_of(request)
        )
        return redeemed is not None

    async def prune(self, now: datetime) -> bool:
        expired = and_(table.c.session_id.is_(None), table.c.expires_at <= now)
        return await self.connection.prune(table, expired)
