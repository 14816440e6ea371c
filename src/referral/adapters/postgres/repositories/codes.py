"""Referral codes in PostgreSQL."""

from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from uuid import UUID

import asyncpg
from asyncpg import UniqueViolationError
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    update,
)

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    to_entity,
    values_of,
)
from referral.adapters.postgres.tables import codes, users
from referral.core.entities.codes import Code, CodeStatus
from referral.core.errors import ActiveCodeExists, CodeTaken

COLUMNS = [codes.c[field.name] for field in fields(Code)]
NOW: BindParameter[datetime] = bindparam("now")


def has_status(status: CodeStatus) -> ColumnElement[bool]:
    """Return `Code.status` as SQL; the contract tests compare the two."""
    expired = codes.c.expires_at <= NOW
    exhausted = and_(codes.c.max_uses.is_not(None), codes.c.uses >= codes.c.max_uses)
    usable = and_(not_(expired), or_(codes.c.max_uses.is_(None), codes.c.uses < codes.c.max_uses))
    return {
        CodeStatus.EXPIRED: expired,
        CodeStatus.EXHAUSTED: and_(not_(expired), exhausted),
        CodeStatus.INACTIVE: and_(usable, not_(codes.c.enabled)),
        CodeStatus.ACTIVE: and_(usable, codes.c.enabled),
    }[status]


BY_ID = codes.c.id == bindparam("code_id")
BY_OWNER = codes.c.user_id == bindparam("user_id")
BY_TEXT = codes.c.text_key == bindparam("text_key")
ENABLED = codes.c.enabled
ACTIVE = has_status(CodeStatus.ACTIVE)
NOT_DELETED = codes.c.deleted_at.is_(None)
OWNER_NOT_BLOCKED = exists().where(users.c.id == codes.c.user_id, users.c.blocked_at.is_(None))
SELECT = select(*COLUMNS)

ADD = insert_entity(codes, Code, "text_key")
FIND = Statement(SELECT.where(BY_ID, BY_OWNER, NOT_DELETED))
FIND_ACTIVE = Statement(SELECT.where(BY_OWNER, ACTIVE))
LIST_ALL = Statement(SELECT.where(BY_OWNER, NOT_DELETED).order_by(codes.c.id.desc()))
LOCK = Statement(SELECT.where(BY_ID, BY_OWNER, NOT_DELETED).with_for_update())
LOCK_ENABLED = Statement(SELECT.where(BY_OWNER, ENABLED).with_for_update())
LOCK_ENABLED_BY_TEXT = Statement(SELECT.where(BY_TEXT, ENABLED).with_for_update())
LOCK_ALL = Statement(
    SELECT.where(or_(and_(BY_OWNER, NOT_DELETED), BY_ID)).order_by(codes.c.id).with_for_update()
)
COUNT_USE = Statement(
    update(codes)
    .where(BY_ID, ACTIVE, OWNER_NOT_BLOCKED)
    .values(uses=codes.c.uses + 1)
    .returning(codes.c.id)
)
REPORTED_UNTIL = codes.c.expiry_reported_until
EXPIRY_REPORTED = func.greatest(REPORTED_UNTIL, codes.c.expires_at)
REVERT_USE = Statement(
    update(codes)
    .where(BY_ID)
    .values(
        uses=codes.c.uses - 1,
        # A code that expired while it was exhausted was not active: its expiry needs no event.
        expiry_reported_until=case(
            (and_(codes.c.expires_at <= NOW, codes.c.uses >= codes.c.max_uses), EXPIRY_REPORTED),
            else_=REPORTED_UNTIL,
        ),
    )
    .returning(*COLUMNS, codes.c.deleted_at)
)
RESTORE_USE = Statement(
    update(codes).where(BY_ID).values(uses=codes.c.uses + 1).returning(*COLUMNS, codes.c.deleted_at)
)
SAVE = Statement(
    update(codes)
    .where(BY_ID)
    .values(
        {name: bindparam(name) for name in ("expires_at", "max_uses", "enabled")}
        | {
            "expiry_reported_until": case(
                (codes.c.expires_at == bindparam("expires_at"), REPORTED_UNTIL),
                else_=literal_column("'-infinity'::timestamptz"),
            )
        }
    )
)
UNREPORTED = codes.c.expires_at > REPORTED_UNTIL
REPORT_EXPIRY = Statement(
    update(codes)
    .where(BY_ID, UNREPORTED)
    .values(expiry_reported_until=EXPIRY_REPORTED)
    .returning(codes.c.id)
)
UNREPORTED_EXPIRIES = (
    select(codes.c.id)
    .where(ENABLED, codes.c.expires_at <= NOW, UNREPORTED)
    .order_by(codes.c.expires_at)
    .limit(bindparam("limit"))
    .with_for_update(key_share=True, skip_locked=True)
)
REPORT_EXPIRIES = Statement(
    update(codes)
    .where(codes.c.id == func.any(func.array(UNREPORTED_EXPIRIES.scalar_subquery())))
    .values(expiry_reported_until=EXPIRY_REPORTED)
    .returning(*COLUMNS)
)
DELETED_VALUES = {"enabled": False, "deleted_at": NOW}
DELETE = Statement(update(codes).where(BY_ID).values(DELETED_VALUES))
DELETE_ALL = Statement(update(codes).where(BY_OWNER, NOT_DELETED).values(DELETED_VALUES))
RETIRE_ANY = update(codes).where(BY_OWNER, ENABLED).values(enabled=False).returning(*COLUMNS)
RETIRE = Statement(RETIRE_ANY)
RETIRE_SPENT = Statement(RETIRE_ANY.where(not_(ACTIVE)))


@cache
def _list_page(status: CodeStatus | None, *, is_first: bool) -> Statement:
    query = SELECT.where(BY_OWNER, NOT_DELETED)
    if status is not None:
        query = query.where(has_status(status))
    if not is_first:
        query = query.where(codes.c.id < bindparam("after"))
    return Statement(query.order_by(codes.c.id.desc()).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresCodeRepository:
    """The table of codes. Deleted codes stay in it, and no method returns them."""

    connection: DatabaseConnection

    async def add(self, code: Code) -> None:
        try:
            await self.connection.execute(ADD, **values_of(code), text_key=text_key(code.text))
        except UniqueViolationError as error:
            if error.constraint_name == "uq_codes_enabled":
                raise ActiveCodeExists from error
            if error.constraint_name == "uq_codes_text_key":
                raise CodeTaken(field="code") from error
            raise

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        return await self.connection.fetch_entity(Code, LOCK, user_id=user_id, code_id=code_id)

    async def lock_enabled(self, user_id: UUID) -> None:
        await self.connection.execute(LOCK_ENABLED, user_id=user_id)

    async def lock_enabled_by_text(self, text: str) -> Code | None:
        return await self.connection.fetch_entity(
            Code, LOCK_ENABLED_BY_TEXT, text_key=text_key(text)
        )

    async def lock_all(self, user_id: UUID, other_code_id: UUID | None) -> list[Code]:
        locked = await self.connection.fetch_entities(
            Code, LOCK_ALL, user_id=user_id, code_id=other_code_id
        )
        return [code for code in locked if code.user_id == user_id]

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """See the port. The statement starts after the code was locked, so it sees a change of the
        owner's block that was committed while the lock was waited for.
        """
        return (
            await self.connection.fetch_value(UUID, COUNT_USE, code_id=code_id, now=now) is not None
        )

    async def revert_use(self, code_id: UUID, now: datetime) -> Code | None:
        rows = await self.connection.fetch(REVERT_USE, code_id=code_id, now=now)
        return _unless_deleted(rows)

    async def restore_use(self, code_id: UUID) -> Code | None:
        return _unless_deleted(await self.connection.fetch(RESTORE_USE, code_id=code_id))

    async def save(self, code: Code) -> None:
        await self.connection.execute(SAVE, code_id=code.id, **values_of(code))

    async def delete(self, code_id: UUID, now: datetime) -> None:
        await self.connection.execute(DELETE, code_id=code_id, now=now)

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        await self.connection.execute(DELETE_ALL, user_id=user_id, now=now)

    async def retire(self, user_id: UUID, *, only_spent_at: datetime | None = None) -> Code | None:
        if only_spent_at is None:
            return await self.connection.fetch_entity(Code, RETIRE, user_id=user_id)
        return await self.connection.fetch_entity(
            Code, RETIRE_SPENT, user_id=user_id, now=only_spent_at
        )

    async def report_expiry(self, code_id: UUID) -> bool:
        reported = await self.connection.fetch_value(UUID, REPORT_EXPIRY, code_id=code_id)
        return reported is not None

    async def report_expiries(self, now: datetime, limit: int) -> list[Code]:
        return await self.connection.fetch_entities(Code, REPORT_EXPIRIES, now=now, limit=limit)

    async def find(self, user_id: UUID, code_id: UUID) -> Code | None:
        return await self.connection.fetch_entity(Code, FIND, user_id=user_id, code_id=code_id)

    async def find_active(self, user_id: UUID, now: datetime) -> Code | None:
        return await self.connection.fetch_entity(Code, FIND_ACTIVE, user_id=user_id, now=now)

    async def list_all(self, user_id: UUID) -> list[Code]:
        return await self.connection.fetch_entities(Code, LIST_ALL, user_id=user_id)

    async def list_page(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]:
        statement = _list_page(status, is_first=after is None)
        return await self.connection.fetch_entities(
            Code, statement, user_id=user_id, now=now, after=after, limit=limit
        )


def _unless_deleted(rows: list[asyncpg.Record]) -> Code | None:
    return next((to_entity(Code, row) for row in rows if row["deleted_at"] is None), None)


def text_key(text: str) -> str:
    """Return the form in which codes are unique: upper case."""
    return text.upper()
