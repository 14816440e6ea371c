"""Reported signing keys in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, delete, literal_column
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.tables import signing_keys as table

ADD = insert(table).values(key_id=bindparam("key_id"), reported_at=bindparam("now"))
# A new row has no xmax. Of two processes with the same new key, the second one updates the row.
REPORT = Statement(
    ADD.on_conflict_do_update(
        index_elements=[table.c.key_id], set_={"reported_at": ADD.excluded.reported_at}
    ).returning(literal_column("xmax = 0"))
)
REMOVE_UNUSED = Statement(
    delete(table).where(table.c.reported_at < bindparam("before")).returning(table.c.key_id)
)


@dataclass(frozen=True, slots=True)
class PostgresSigningKeyRegistry:
    """The table of signing keys."""

    connection: DatabaseConnection

    async def report(self, key_ids: Sequence[str], now: datetime) -> list[str]:
        return [
            key_id
            for key_id in key_ids
            if await self.connection.fetch_value(bool, REPORT, key_id=key_id, now=now)
        ]

    async def remove_unused(self, before: datetime) -> list[str]:
        rows = await self.connection.fetch(REMOVE_UNUSED, before=before)
        return [row["key_id"] for row in rows]
