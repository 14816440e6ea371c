"""Referral codes in PostgreSQL."""

from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    exists,
    insert,
    not_,
    or_,
    select,
    update,
)

from referral.adapters.postgres.connection import DatabaseSession, Query, values_of
from referral.adapters.postgres.tables import codes, users
from referral.core.entities.codes import Code, CodeStatus
from referral.core.errors import ActiveCodeExists, CodeTaken

CODE_FIELDS = ("id", "user_id", "text", "created_at", "expires_at", "max_uses", "uses", "enabled")
COLUMNS = [codes.c[name] for name in CODE_FIELDS]


def _has_status(status: CodeStatus, now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Say `Code.status` in SQL; the contract tests hold the two together."""
    expired = codes.c.expires_at <= now
    exhausted = and_(codes.c.max_uses.is_not(None), codes.c.uses >= codes.c.max_uses)
    usable = and_(not_(expired), or_(codes.c.max_uses.is_(None), codes.c.uses < codes.c.max_uses))
    return {
        CodeStatus.EXPIRED: expired,
        CodeStatus.EXHAUSTED: and_(not_(expired), exhausted),
        CodeStatus.INACTIVE: and_(usable, not_(codes.c.enabled)),
        CodeStatus.ACTIVE: and_(usable, codes.c.enabled),
    }[status]


BY_ID = codes.c.id == bindparam("code_id")
BY_OWNER = codes.c.user_id == bindparam("owner")
BY_TEXT_KEY = codes.c.text_key == bindparam("key")
NOT_DELETED = codes.c.deleted_at.is_(None)
NOW: BindParameter[datetime] = bindparam("now")
DELETED_VALUES = {"enabled": False, "deleted_at": NOW}
OWNER_NOT_BLOCKED = exists().where(users.c.id == codes.c.user_id, users.c.blocked_at.is_(None))
SELECT = select(*COLUMNS)

ADD = Query(insert(codes).values({name: bindparam(name) for name in (*CODE_FIELDS, "text_key")}))
GET = Query(SELECT.where(BY_ID, BY_OWNER, NOT_DELETED))
LOCK = Query(SELECT.where(BY_ID, BY_OWNER, NOT_DELETED).with_for_update())
LOCK_USABLE = Query(SELECT.where(BY_TEXT_KEY, codes.c.enabled).with_for_update())
LOCK_ENABLED = Query(SELECT.where(BY_OWNER, codes.c.enabled).with_for_update())
BY_TEXT = Query(SELECT.where(BY_TEXT_KEY, NOT_DELETED, OWNER_NOT_BLOCKED))
ACTIVE = Query(SELECT.where(BY_OWNER, _has_status(CodeStatus.ACTIVE, NOW)))
ALL = Query(SELECT.where(BY_OWNER, NOT_DELETED).order_by(codes.c.id.desc()))
COUNT_USE = Query(
    update(codes)
    .where(BY_ID, _has_status(CodeStatus.ACTIVE, NOW), OWNER_NOT_BLOCKED)
    .values(uses=codes.c.uses + 1)
    .returning(codes.c.id)
)
LOCK_ALL = Query(
    select(codes.c.id)
    .where(or_(and_(BY_OWNER, NOT_DELETED), BY_ID))
    .order_by(codes.c.id)
    .with_for_update()
)
GIVE_BACK = Query(
    update(codes).where(BY_ID).values(uses=codes.c.uses - 1).returning(*COLUMNS, codes.c.deleted_at)
)
SAVE = Query(
    update(codes)
    .where(BY_ID)
    .values({name: bindparam(f"new_{name}") for name in ("expires_at", "max_uses", "enabled")})
)
DELETE = Query(update(codes).where(BY_ID).values(DELETED_VALUES))
DELETE_ALL = Query(update(codes).where(BY_OWNER, NOT_DELETED).values(DELETED_VALUES))
RETIRE = Query(update(codes).where(BY_OWNER, codes.c.enabled).values(enabled=False))
RETIRE_SPENT = Query(
    update(codes)
    .where(BY_OWNER, codes.c.enabled, not_(_has_status(CodeStatus.ACTIVE, NOW)))
    .values(enabled=False)
)


class PostgresCodeRepository:
    """The table of codes. Deleted ones stay in it and are never shown."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, code: Code) -> None:
        """See the port."""
        try:
            await self._session.fetch(ADD, **values_of(code), text_key=text_key(code.text))
        except UniqueViolationError as error:
            if error.constraint_name == "uq_codes_enabled":
                raise ActiveCodeExists from error
            if error.constraint_name == "uq_codes_text_key":
                raise CodeTaken(field="code") from error
            raise

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        """See the port."""
        return await self._one(LOCK, owner=user_id, code_id=code_id)

    async def lock_enabled(self, user_id: UUID) -> None:
        """See the port."""
        await self._session.fetch(LOCK_ENABLED, owner=user_id)

    async def lock_enabled_by_text(self, text: str) -> Code | None:
        """See the port."""
        return await self._one(LOCK_USABLE, key=text_key(text))

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """See the port. A block that ended while the code's lock was waited for is seen: the
        statement begins after it, and finds nothing to wait for.
        """
        return await self._session.fetch_one(COUNT_USE, code_id=code_id, now=now) is not None

    async def revert_use(self, code_id: UUID) -> Code | None:
        """See the port."""
        *row, deleted_at = await self._session.fetch_one(GIVE_BACK, code_id=code_id) or (None,)
        return Code(*row) if row and deleted_at is None else None

    async def save(self, code: Code) -> None:
        """See the port."""
        await self._session.fetch(
            SAVE,
            code_id=code.id,
            new_expires_at=code.expires_at,
            new_max_uses=code.max_uses,
            new_enabled=code.enabled,
        )

    async def delete(self, code_id: UUID, now: datetime) -> None:
        """See the port."""
        await self._session.fetch(DELETE, code_id=code_id, now=now)

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        """See the port."""
        await self._session.fetch(DELETE_ALL, owner=user_id, now=now)

    async def lock_all(self, user_id: UUID, other_code_id: UUID | None) -> None:
        """See the port."""
        await self._session.fetch(LOCK_ALL, owner=user_id, code_id=other_code_id)

    async def retire(self, user_id: UUID, *, only_spent_at: datetime | None = None) -> None:
        """See the port."""
        if only_spent_at is None:
            await self._session.fetch(RETIRE, owner=user_id)
        else:
            await self._session.fetch(RETIRE_SPENT, owner=user_id, now=only_spent_at)

    async def find(self, user_id: UUID, code_id: UUID) -> Code | None:
        """See the port."""
        return await self._one(GET, owner=user_id, code_id=code_id)

    async def list_all(self, user_id: UUID) -> list[Code]:
        """See the port."""
        return [Code(*row) for row in await self._session.fetch(ALL, owner=user_id)]

    async def find_active(self, user_id: UUID, now: datetime) -> Code | None:
        """See the port."""
        return await self._one(ACTIVE, owner=user_id, now=now)

    async def find_by_text(self, text: str) -> Code | None:
        """See the port."""
        return await self._one(BY_TEXT, key=text_key(text))

    async def list_page(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]:
        """See the port."""
        query = SELECT.where(codes.c.user_id == user_id, NOT_DELETED)
        if status is not None:
            query = query.where(_has_status(status, now))
        if after is not None:
            query = query.where(codes.c.id < after)
        rows = await self._session.execute(query.order_by(codes.c.id.desc()).limit(limit))
        return [msgspec.convert(row, Code) for row in rows.mappings()]

    async def _one(self, query: Query, **values: object) -> Code | None:
        row = await self._session.fetch_one(query, **values)
        return None if row is None else Code(*row)


def text_key(text: str) -> str:
    """Return the key by which a code is unique: its text in upper case."""
    return text.upper()
