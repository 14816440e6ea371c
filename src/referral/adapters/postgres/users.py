"""Accounts in PostgreSQL."""

from dataclasses import asdict, fields
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from referral.adapters.postgres.tables import users
from referral.core.errors import EmailTaken
from referral.core.model import Deliverability, Locale, User

NAMES = tuple(field.name for field in fields(User))
COLUMNS = [users.c[name] for name in NAMES]
PERSONAL = ("email", "email_key", "password_hash")
"""What an erased account has no longer."""


class PostgresUsers:
    """The table of accounts."""

    def __init__(self, session: AsyncSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, user: User) -> None:
        """See the port."""
        try:
            await self._session.execute(insert(users).values(**asdict(user)))
        except IntegrityError as error:
            if "uq_users_email_key" in str(error.orig):
                raise EmailTaken(pointer="/email") from error
            raise

    async def get(self, user_id: UUID) -> User | None:
        """See the port."""
        return await self._one(users.c.id == user_id)

    async def by_email(self, email_key: str) -> User | None:
        """See the port."""
        return await self._one(users.c.email_key == email_key)

    async def update(self, user_id: UUID, locale: Locale, *, notify: bool) -> None:
        """See the port."""
        statement = update(users).where(users.c.id == user_id)
        await self._session.execute(statement.values(locale=locale, notify_on_referral=notify))

    async def lock(self, user_id: UUID) -> User | None:
        """See the port. NO KEY UPDATE leaves the foreign keys of new referrals in peace."""
        return await self._one(users.c.id == user_id, lock=True)

    async def save(self, user: User) -> None:
        """See the port."""
        values = asdict(user)
        del values["id"], values["created_at"]
        await self._session.execute(update(users).where(users.c.id == user.id).values(**values))

    async def erase(self, user_id: UUID, now: datetime) -> None:
        """See the port. The row stays, for the referrals that lead to it."""
        gone: dict[str, object] = dict.fromkeys(PERSONAL) | {
            "email_verified": False,
            "deliverability": Deliverability.UNKNOWN,
            "erased_at": now,
        }
        await self._session.execute(update(users).where(users.c.id == user_id).values(**gone))

    async def _one(self, where: ColumnElement[bool], *, lock: bool = False) -> User | None:
        query = select(*COLUMNS).where(where, users.c.erased_at.is_(None))
        if lock:
            query = query.with_for_update(key_share=True)
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else msgspec.convert(row, User)
