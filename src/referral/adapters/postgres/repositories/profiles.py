"""What enrichment found about users, in PostgreSQL."""

from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.connection import DatabaseSession, Query, values_of
from referral.adapters.postgres.tables import profiles as table
from referral.core.entities.users import Profile

PROFILE_FIELDS = [field.name for field in fields(Profile)]
COLUMNS = [table.c[name] for name in PROFILE_FIELDS]

_added = insert(table).values(
    {name: bindparam(name) for name in ("user_id", "found_at", *PROFILE_FIELDS)}
)
SAVE = Query(
    _added.on_conflict_do_update(
        index_elements=["user_id"],
        set_={name: _added.excluded[name] for name in ("found_at", *PROFILE_FIELDS)},
    )
)


class PostgresProfileRepository:
    """The table of profiles."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        """See the port."""
        await self._session.fetch(SAVE, user_id=user_id, found_at=now, **values_of(profile))

    async def find(self, user_id: UUID) -> Profile | None:
        """See the port."""
        found = await self._session.execute(select(*COLUMNS).where(table.c.user_id == user_id))
        row = found.mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Profile)

    async def delete(self, user_id: UUID) -> None:
        """See the port."""
        await self._session.execute(delete(table).where(table.c.user_id == user_id))
