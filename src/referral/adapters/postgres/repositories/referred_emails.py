"""E-mail addresses of erased accounts that had a confirmed referral, in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.tables import referred_emails as table

CONTAINS = Statement(
    select(table.c.fingerprint)
    .where(
        table.c.fingerprint == func.any(bindparam("fingerprints")),
        table.c.referred_at > bindparam("since"),
    )
    .limit(1)
)
_insert = insert(table)
ADD = Statement(
    _insert.on_conflict_do_update(
        index_elements=["fingerprint"], set_={"referred_at": _insert.excluded.referred_at}
    )
)


@dataclass(frozen=True, slots=True)
class PostgresReferredEmailRepository:
    """The table of referred e-mail addresses."""

    connection: DatabaseConnection

    async def contains(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool:
        found = await self.connection.fetch_value(
            bytes, CONTAINS, fingerprints=fingerprints, since=since
        )
        return found is not None

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        await self.connection.execute(ADD, fingerprint=fingerprint, referred_at=referred_at)

    async def prune(self, before: datetime) -> bool:
        return await self.connection.prune(table, table.c.referred_at < before)
