"""Profiles of users in PostgreSQL."""

from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseConnection, Statement, values_of
from referral.adapters.postgres.tables import profiles as table
from referral.core.entities.users import Profile

PROFILE_FIELDS = [field.name for field in fields(Profile)]
COLUMNS = [table.c[name] for name in PROFILE_FIELDS]
BY_USER = table.c.user_id == bindparam("user_id")

_insert = insert(table)
SAVE = Statement(
    _insert.on_conflict_do_update(
        index_elements=["user_id"],
        set_={name: _insert.excluded[name] for name in ("found_at", *PROFILE_FIELDS)},
    )
)
FIND = Statement(select(*COLUMNS).where(BY_USER))
DELETE = Statement(delete(table).where(BY_USER))


@dataclass(frozen=True, slots=True)
class PostgresProfileRepository:
    """The table of profiles."""

    connection: DatabaseConnection

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        await self.connection.execute(SAVE, user_id=user_id, found_at=now, **values_of(profile))

    async def find(self, user_id: UUID) -> Profile | None:
        return await self.connection.fetch_entity(Profile, FIND, user_id=user_id)

    async def delete(self, user_id: UUID) -> None:
        await self.connection.execute(DELETE, user_id=user_id)
