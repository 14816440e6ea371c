"""The count of mails to each address, in PostgreSQL, so that it holds for all processes."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import mails as table
from referral.core.ports.security import Fingerprinter


class PostgresMailQuota:
    """The table of mails that were counted."""

    def __init__(self, session: DatabaseSession, fingerprints: Fingerprinter) -> None:
        """Work within a session."""
        self._session = session
        self._fingerprints = fingerprints

    async def reserve_slot(
        self, mail_id: UUID, quota: str, now: datetime, *, slots: int, window: timedelta
    ) -> datetime | None:
        """See the port. The function holds the quota, looks and counts, in one round trip."""
        digest = quota_digest(self._fingerprints, quota)
        place = func.take_mail_place(mail_id, digest, now, slots, window)
        free_at: datetime | None = (await self._session.execute(select(place))).scalar_one()
        return free_at

    async def reset(self, quota: str) -> None:
        """See the port."""
        digest = quota_digest(self._fingerprints, quota)
        await self._session.execute(delete(table).where(table.c.address_digest == digest))

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(self._session, table, table.c.counted_at < before)


def quota_digest(fingerprints: Fingerprinter, quota: str) -> bytes:
    """Return what the mails of a quota are counted under: a keyed digest, since a plain one could
    be searched for addresses. It is made with the key that signs, so with another one in its place
    the count begins anew.
    """
    return fingerprints.compute(f"mails to {quota}".encode())[0]
