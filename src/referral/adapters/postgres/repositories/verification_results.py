"""Results of e-mail verification in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.tables import verification_results as table
from referral.core.entities.deliverability import Deliverability

BY_FINGERPRINTS = table.c.fingerprint == func.any(bindparam("fingerprints"))

# After a change of keys an address may have two results: the newer one counts.
FIND = Statement(
    select(table.c.verdict)
    .where(BY_FINGERPRINTS, table.c.given_at >= bindparam("since"))
    .order_by(table.c.given_at.desc())
    .limit(1)
)
_insert = insert(table)
SAVE = Statement(
    _insert.on_conflict_do_update(
        index_elements=["fingerprint"],
        set_={"verdict": _insert.excluded.verdict, "given_at": _insert.excluded.given_at},
    )
)
DELETE = Statement(delete(table).where(BY_FINGERPRINTS))


@dataclass(frozen=True, slots=True)
class PostgresVerificationResultRepository:
    """The table of verification results."""

    connection: DatabaseConnection

    async def find(self, fingerprints: tuple[bytes, ...], since: datetime) -> Deliverability | None:
        return await self.connection.fetch_value(
            Deliverability, FIND, fingerprints=fingerprints, since=since
        )

    async def save(self, fingerprint: bytes, result: Deliverability, now: datetime) -> None:
        await self.connection.execute(SAVE, fingerprint=fingerprint, verdict=result, given_at=now)

    async def delete(self, fingerprints: tuple[bytes, ...]) -> None:
        await self.connection.execute(DELETE, fingerprints=fingerprints)

    async def prune(self, before: datetime) -> bool:
        return await self.connection.prune(table, table.c.given_at < before)
