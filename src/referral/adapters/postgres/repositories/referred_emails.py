"""Addresses of erased accounts that had a confirmed referral, in PostgreSQL."""

from datetime import datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseSession, Query
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import referred_emails as table

INCLUDES = Query(
    select(table.c.fingerprint)
    .where(
        table.c.fingerprint == func.any(bindparam("fingerprints")),
        table.c.referred_at > bindparam("since"),
    )
    .limit(1)
)
ADD = Query(
    insert(table)
    .values(fingerprint=bindparam("fingerprint"), referred_at=bindparam("referred_at"))
    .on_conflict_do_update(
        index_elements=["fingerprint"], set_={"referred_at": bindparam("referred_at")}
    )
)


class PostgresReferredEmailRepository:
    """The table of addresses that were referred."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def contains(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool:
        """See the port."""
        found = await self._session.fetch_one(
            INCLUDES, fingerprints=list(fingerprints), since=since
        )
        return found is not None

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        """See the port."""
        await self._session.fetch(ADD, fingerprint=fingerprint, referred_at=referred_at)

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(self._session, table, table.c.referred_at < before)
