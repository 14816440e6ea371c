"""The mail quota in PostgreSQL, where it holds for all processes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import bindparam, delete, func, select

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.tables import mails as table
from referral.core.ports.security import Fingerprinter

# One round trip: the function locks the quota, counts its mails and adds this one.
RESERVE_SLOT = Statement(
    select(
        func.take_mail_place(
            bindparam("mail_id"),
            bindparam("digest"),
            bindparam("now"),
            bindparam("slots"),
            bindparam("window"),
        )
    )
)
RESET = Statement(delete(table).where(table.c.address_digest == bindparam("digest")))


@dataclass(frozen=True, slots=True)
class PostgresMailQuota:
    """The table of counted mails."""

    connection: DatabaseConnection
    fingerprinter: Fingerprinter

    async def reserve_slot(
        self, mail_id: UUID, quota: str, now: datetime, *, slots: int, window: timedelta
    ) -> datetime | None:
        digest = quota_digest(self.fingerprinter, quota)
        return await self.connection.fetch_value(
            datetime,
            RESERVE_SLOT,
            mail_id=mail_id,
            digest=digest,
            now=now,
            slots=slots,
            window=window,
        )

    async def reset(self, quota: str) -> None:
        await self.connection.execute(RESET, digest=quota_digest(self.fingerprinter, quota))

    async def prune(self, before: datetime) -> bool:
        return await self.connection.prune(table, table.c.counted_at < before)


def quota_digest(fingerprinter: Fingerprinter, quota: str) -> bytes:
    """Return the digest under which the mails of a quota are counted.

    The digest is keyed, since a plain one could be searched for e-mail addresses. Its key is the
    newest signing key: after a change of keys the count starts anew.
    """
    return fingerprinter.compute(f"mails to {quota}".encode())[0]
