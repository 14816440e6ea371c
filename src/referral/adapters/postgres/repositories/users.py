"""Accounts in PostgreSQL."""

from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import bindparam, case, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import users
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import User
from referral.core.errors import EmailTaken, ExternalIdTaken

USER_FIELDS = tuple(field.name for field in fields(User))
USER_COLUMNS = [users.c[name] for name in USER_FIELDS]
MUTABLE_FIELDS = [name for name in USER_FIELDS if name not in {"id", "created_at"}]

DEADLINE_BATCH_SIZE = 1000
"""Accounts that one statement changes, so that it ends before its timeout."""

ERASED_VALUES: dict[str, object] = {
    "email": None,
    "email_key": None,
    "password_hash": None,
    "password_cost": None,
    "email_verified": False,
    "deliverability": Deliverability.UNKNOWN,
    "confirm_by": None,
    "external_id": None,
    "erased_at": bindparam("now"),
}

BY_ID = users.c.id == bindparam("user_id")
NOT_ERASED = users.c.erased_at.is_(None)
SELECT = select(*USER_COLUMNS).where(NOT_ERASED)
UNCONFIRMED = (
    select(users.c.id)
    .where(users.c.confirm_by.is_not(None))
    .limit(DEADLINE_BATCH_SIZE)
    .with_for_update(skip_locked=True)
)

ADD = insert_entity(users, User)
FIND = Statement(SELECT.where(BY_ID))
FIND_COSTLIEST_HASH = Statement(
    select(users.c.password_hash)
    .where(users.c.password_cost.is_not(None))
    .order_by(users.c.password_cost.desc())
    .limit(1)
)
FIND_BY_EMAIL = Statement(SELECT.where(users.c.email_key == bindparam("email_key")))
FIND_BY_EXTERNAL_ID = Statement(SELECT.where(users.c.external_id == bindparam("external_id")))
# FOR NO KEY UPDATE: the foreign keys of new referrals lock the row FOR KEY SHARE, and do not wait.
LOCK = Statement(SELECT.where(BY_ID).with_for_update(key_share=True))
LOCK_UNCONFIRMED = Statement(
    SELECT.where(
        users.c.confirm_by <= bindparam("now"),
        users.c.email_verified.is_(False),
        users.c.blocked_at.is_(None),
    )
    .order_by(users.c.confirm_by)
    .limit(1)
    .with_for_update(key_share=True, skip_locked=True)
)
# A hash that replaces an imported one is a hash of this service.
KEPT_COST = case((users.c.password_hash == bindparam("password_hash"), users.c.password_cost))
SAVE = Statement(
    update(users)
    .where(BY_ID)
    .values({name: bindparam(name) for name in MUTABLE_FIELDS} | {"password_cost": KEPT_COST})
)
ERASE = Statement(update(users).where(BY_ID).values(ERASED_VALUES))
CLEAR_CONFIRMATION_DEADLINES = Statement(
    update(users).where(users.c.id.in_(UNCONFIRMED)).values(confirm_by=None).returning(users.c.id)
)


@dataclass(frozen=True, slots=True)
class PostgresUserRepository:
    """The table of accounts. An erased account keeps its row, which referrals refer to."""

    connection: DatabaseConnection

    async def add(self, user: User) -> None:
        try:
            await self.connection.execute(ADD, **values_of(user))
        except UniqueViolationError as error:
            raise _taken(error) from error

    async def find(self, user_id: UUID) -> User | None:
        return await self.connection.fetch_entity(User, FIND, user_id=user_id)

    async def find_by_email(self, email_key: str) -> User | None:
        return await self.connection.fetch_entity(User, FIND_BY_EMAIL, email_key=email_key)

    async def find_by_external_id(self, external_id: str) -> User | None:
        return await self.connection.fetch_entity(
            User, FIND_BY_EXTERNAL_ID, external_id=external_id
        )

    async def find_costliest_hash(self) -> str | None:
        return await self.connection.fetch_value(str, FIND_COSTLIEST_HASH)

    async def lock(self, user_id: UUID) -> User | None:
        return await self.connection.fetch_entity(User, LOCK, user_id=user_id)

    async def save(self, user: User) -> None:
        try:
            await self.connection.execute(SAVE, user_id=user.id, **values_of(user))
        except UniqueViolationError as error:
            raise _taken(error) from error

    async def erase(self, user_id: UUID, now: datetime) -> None:
        await self.connection.execute(ERASE, user_id=user_id, now=now)

    async def lock_unconfirmed(self, now: datetime) -> User | None:
        return await self.connection.fetch_entity(User, LOCK_UNCONFIRMED, now=now)

    async def clear_confirmation_deadlines(self) -> bool:
        cleared = await self.connection.fetch(CLEAR_CONFIRMATION_DEADLINES)
        return len(cleared) == DEADLINE_BATCH_SIZE


def _taken(error: UniqueViolationError) -> Exception:
    """Return the error of the core for a unique value that another account has."""
    if error.constraint_name == "uq_users_email_key":
        return EmailTaken(field="email")
    return ExternalIdTaken() if error.constraint_name == "uq_users_external_id" else error
