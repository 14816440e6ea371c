"""What was said of addresses, in PostgreSQL."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.pruning import prune
from referral.adapters.postgres.tables import verification_results as table
from referral.core.entities.deliverability import Deliverability


class PostgresVerificationResults:
    """The table of verdicts."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def find(self, fingerprints: tuple[bytes, ...], since: datetime) -> Deliverability | None:
        """See the port. After a change of keys an address may have two: the newer one counts."""
        known = (table.c.fingerprint.in_(fingerprints), table.c.given_at >= since)
        newest = select(table.c.verdict).where(*known).order_by(table.c.given_at.desc()).limit(1)
        verdict = (await self._session.execute(newest)).scalar_one_or_none()
        return None if verdict is None else Deliverability(verdict)

    async def save(self, fingerprint: bytes, result: Deliverability, now: datetime) -> None:
        """See the port."""
        given = {"verdict": result, "given_at": now}
        added = insert(table).values(fingerprint=fingerprint, **given)
        await self._session.execute(
            added.on_conflict_do_update(index_elements=["fingerprint"], set_=given)
        )

    async def delete(self, fingerprints: tuple[bytes, ...]) -> None:
        """See the port."""
        await self._session.execute(delete(table).where(table.c.fingerprint.in_(fingerprints)))

    async def prune(self, before: datetime) -> bool:
        """See the port."""
        return await prune(self._session, table, table.c.given_at < before)
