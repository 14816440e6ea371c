"""What enrichment found about users, in PostgreSQL."""

from dataclasses import asdict, fields
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from referral.adapters.postgres.session import DatabaseSession
from referral.adapters.postgres.tables import profiles as table
from referral.core.model import Profile

COLUMNS = [table.c[field.name] for field in fields(Profile)]


class PostgresProfiles:
    """The table of profiles."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        """See the port."""
        found = asdict(profile) | {"found_at": now}
        added = insert(table).values(user_id=user_id, **found)
        await self._session.execute(
            added.on_conflict_do_update(index_elements=["user_id"], set_=found)
        )

    async def of(self, user_id: UUID) -> Profile | None:
        """See the port."""
        found = await self._session.execute(select(*COLUMNS).where(table.c.user_id == user_id))
        row = found.mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Profile)

    async def delete(self, user_id: UUID) -> None:
        """See the port."""
        await self._session.execute(delete(table).where(table.c.user_id == user_id))
