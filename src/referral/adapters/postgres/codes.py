"""Referral codes in PostgreSQL."""

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, and_, insert, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from referral.adapters.postgres.tables import codes
from referral.core.errors import ActiveCodeExists, CodeTaken
from referral.core.model import Code, CodeStatus

NAMES = ("id", "user_id", "text", "created_at", "expires_at", "max_uses", "uses", "enabled")
COLUMNS = [codes.c[name] for name in NAMES]


class PostgresCodes:
    """The table of codes. Deleted ones stay in it and are never shown."""

    def __init__(self, session: AsyncSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, code: Code) -> None:
        """See the port."""
        values = asdict(code) | {"text_key": _key(code.text)}
        try:
            await self._session.execute(insert(codes).values(**values))
        except IntegrityError as error:
            if "uq_codes_enabled" in str(error.orig):
                raise ActiveCodeExists from error
            if "uq_codes_text_key" in str(error.orig):
                raise CodeTaken(pointer="/code") from error
            raise

    async def lock(self, user_id: UUID, code_id: UUID) -> Code | None:
        """See the port."""
        return await self._one(_own(user_id, code_id), lock=True)

    async def lock_usable(self, text: str) -> Code | None:
        """See the port."""
        return await self._one(and_(codes.c.text_key == _key(text), codes.c.enabled), lock=True)

    async def count_use(self, code_id: UUID, now: datetime) -> bool:
        """See the port."""
        counted = await self._session.execute(
            update(codes)
            .where(codes.c.id == code_id, _is(CodeStatus.ACTIVE, now))
            .values(uses=codes.c.uses + 1)
            .returning(codes.c.id)
        )
        return counted.first() is not None

    async def save(self, code: Code) -> None:
        """See the port."""
        await self._session.execute(
            update(codes)
            .where(codes.c.id == code.id)
            .values(expires_at=code.expires_at, max_uses=code.max_uses, enabled=code.enabled)
        )

    async def delete(self, code_id: UUID, now: datetime) -> None:
        """See the port."""
        await self._session.execute(
            update(codes).where(codes.c.id == code_id).values(enabled=False, deleted_at=now)
        )

    async def delete_all(self, user_id: UUID, now: datetime) -> None:
        """See the port."""
        live = and_(codes.c.user_id == user_id, codes.c.deleted_at.is_(None))
        await self._session.execute(update(codes).where(live).values(enabled=False, deleted_at=now))

    async def retire(self, user_id: UUID, *, spent_at: datetime | None = None) -> None:
        """See the port."""
        which = [codes.c.user_id == user_id, codes.c.enabled]
        if spent_at is not None:
            which.append(not_(_is(CodeStatus.ACTIVE, spent_at)))
        await self._session.execute(update(codes).where(*which).values(enabled=False))

    async def get(self, user_id: UUID, code_id: UUID) -> Code | None:
        """See the port."""
        return await self._one(_own(user_id, code_id))

    async def all(self, user_id: UUID) -> list[Code]:
        """See the port."""
        query = select(*COLUMNS).where(codes.c.user_id == user_id, codes.c.deleted_at.is_(None))
        rows = await self._session.execute(query.order_by(codes.c.id.desc()))
        return [msgspec.convert(row, Code) for row in rows.mappings()]

    async def active(self, user_id: UUID, now: datetime) -> Code | None:
        """See the port."""
        return await self._one(and_(codes.c.user_id == user_id, _is(CodeStatus.ACTIVE, now)))

    async def by_text(self, text: str) -> Code | None:
        """See the port."""
        return await self._one(and_(codes.c.text_key == _key(text), codes.c.deleted_at.is_(None)))

    async def newest(
        self,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]:
        """See the port."""
        query = select(*COLUMNS).where(codes.c.user_id == user_id, codes.c.deleted_at.is_(None))
        if status is not None:
            query = query.where(_is(status, now))
        if after is not None:
            query = query.where(codes.c.id < after)
        rows = await self._session.execute(query.order_by(codes.c.id.desc()).limit(limit))
        return [msgspec.convert(row, Code) for row in rows.mappings()]

    async def _one(self, where: ColumnElement[bool], *, lock: bool = False) -> Code | None:
        query = select(*COLUMNS).where(where)
        if lock:
            query = query.with_for_update(of=codes)
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Code)


def _key(text: str) -> str:
    return text.upper()


def _own(user_id: UUID, code_id: UUID) -> ColumnElement[bool]:
    return and_(codes.c.id == code_id, codes.c.user_id == user_id, codes.c.deleted_at.is_(None))


def _is(status: CodeStatus, now: datetime) -> ColumnElement[bool]:
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
