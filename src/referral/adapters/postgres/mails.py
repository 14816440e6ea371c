"""The count of mails to each address, in PostgreSQL, so that it holds for all processes."""

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select

from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.session import DatabaseSession
from referral.adapters.postgres.tables import mails as table


class PostgresMails:
    """The table of mails that were counted."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def take_place(
        self, mail: UUID, address: str, now: datetime, *, mails: int, within: timedelta
    ) -> datetime | None:
        """See the port. The function holds the address, looks and counts, in one round trip."""
        digest = hashlib.sha256(address.encode()).digest()
        place = func.take_mail_place(mail, digest, now, mails, within)
        free_at: datetime | None = (await self._session.execute(select(place))).scalar_one()
        return free_at

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(self._session, table, table.c.counted_at < before)
