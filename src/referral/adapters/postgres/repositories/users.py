"""Accounts in PostgreSQL."""

from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError
from sqlalchemy import ColumnElement, bindparam, insert, select, update

from referral.adapters.postgres.connection import DatabaseSession, Query, values_of
from referral.adapters.postgres.tables import users
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import User
from referral.core.errors import EmailTaken

USER_FIELDS = tuple(field.name for field in fields(User))
COLUMNS = [users.c[name] for name in USER_FIELDS]
PERSONAL_COLUMNS = ("email", "email_key", "password_hash")
"""What an erased account has no longer."""


def _one(where: ColumnElement[bool], *, lock: bool = False) -> Query:
    query = select(*COLUMNS).where(where, users.c.erased_at.is_(None))
    return Query(query.with_for_update(key_share=True) if lock else query)


ADD = Query(insert(users).values({name: bindparam(name) for name in USER_FIELDS}))
GET = _one(users.c.id == bindparam("user_id"))
LOCK = _one(users.c.id == bindparam("user_id"), lock=True)
BY_EMAIL = _one(users.c.email_key == bindparam("email_key"))
LOCK_UNCONFIRMED = Query(
    select(*COLUMNS)
    .where(
        users.c.confirm_by <= bindparam("now"),
        users.c.email_verified.is_(False),
        users.c.blocked_at.is_(None),
        users.c.erased_at.is_(None),
    )
    .order_by(users.c.confirm_by)
    .limit(1)
    .with_for_update(key_share=True, skip_locked=True)
)
WAIVE_BATCH_SIZE = 1000
"""How many accounts one statement changes, so that it does not run into the limit of its time."""


class PostgresUserRepository:
    """The table of accounts."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, user: User) -> None:
        """See the port."""
        try:
            await self._session.fetch(ADD, **values_of(user))
        except UniqueViolationError as error:
            if error.constraint_name != "uq_users_email_key":
                raise
            raise EmailTaken(field="email") from error

    async def find(self, user_id: UUID) -> User | None:
        """See the port."""
        return await self._one(GET, user_id=user_id)

    async def find_by_email(self, email_key: str) -> User | None:
        """See the port."""
        return await self._one(BY_EMAIL, email_key=email_key)

    async def lock(self, user_id: UUID) -> User | None:
        """See the port. NO KEY UPDATE leaves the foreign keys of new referrals in peace."""
        return await self._one(LOCK, user_id=user_id)

    async def save(self, user: User) -> None:
        """See the port."""
        values = values_of(user)
        del values["id"], values["created_at"]
        await self._session.execute(update(users).where(users.c.id == user.id).values(**values))

    async def erase(self, user_id: UUID, now: datetime) -> None:
        """See the port. The row stays, for the referrals that lead to it."""
        gone: dict[str, object] = dict.fromkeys(PERSONAL_COLUMNS) | {
            "email_verified": False,
            "deliverability": Deliverability.UNKNOWN,
            "confirm_by": None,
            "erased_at": now,
        }
        await self._session.execute(update(users).where(users.c.id == user_id).values(**gone))

    async def lock_unconfirmed(self, now: datetime) -> User | None:
        """See the port."""
        return await self._one(LOCK_UNCONFIRMED, now=now)

    async def clear_confirmation_deadlines(self) -> bool:
        """See the port."""
        some = select(users.c.id).where(users.c.confirm_by.is_not(None)).limit(WAIVE_BATCH_SIZE)
        waive = update(users).where(users.c.id.in_(some.with_for_update(skip_locked=True)))
        done = await self._session.execute(waive.values(confirm_by=None))
        return done.rowcount == WAIVE_BATCH_SIZE

    async def _one(self, query: Query, **values: object) -> User | None:
        row = await self._session.fetch_one(query, **values)
        return None if row is None else msgspec.convert(dict(row), User)
