"""Referrals in PostgreSQL."""

from dataclasses import fields
from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError
from sqlalchemy import ColumnElement, bindparam, insert, select, update

from referral.adapters.postgres.connection import DatabaseSession, Query, values_of
from referral.adapters.postgres.repositories.users import COLUMNS as USER
from referral.adapters.postgres.tables import referrals, users
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import AlreadyReferred

LIST_COLUMNS = [
    referrals.c.id.label("referral_id"),
    users.c.id,
    users.c.email,
    referrals.c.status,
    referrals.c.code,
    referrals.c.joined_at,
]

ADD = Query(
    insert(referrals).values({field.name: bindparam(field.name) for field in fields(Referral)})
)


class PostgresReferralRepository:
    """The table of referrals."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, referral: Referral) -> None:
        """See the port."""
        try:
            await self._session.fetch(ADD, **values_of(referral))
        except UniqueViolationError as error:
            if error.constraint_name != "uq_referrals_referred_id":
                raise
            raise AlreadyReferred from error

    async def lock_pending(self, user_id: UUID) -> Referral | None:
        """See the port."""
        return await self._pending(referrals.c.referred_id == user_id)

    async def lock_overdue(self, joined_before: datetime) -> Referral | None:
        """See the port."""
        return await self._pending(referrals.c.joined_at <= joined_before, skip_locked=True)

    async def set_status(self, referral_id: UUID, status: ReferralStatus) -> None:
        """See the port."""
        decided = update(referrals).where(referrals.c.id == referral_id).values(status=status)
        await self._session.execute(decided)

    async def find_by_referred(self, user_id: UUID) -> Referral | None:
        """See the port."""
        query = select(referrals).where(referrals.c.referred_id == user_id)
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Referral)

    async def list_page(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[ReferralListItem]:
        """See the port."""
        query = select(*LIST_COLUMNS).join(users, users.c.id == referrals.c.referred_id)
        query = query.where(referrals.c.referrer_id == user_id)
        if status is not None:
            query = query.where(referrals.c.status == status)
        if after is not None:
            query = query.where(referrals.c.id < after)
        rows = await self._session.execute(query.order_by(referrals.c.id.desc()).limit(limit))
        return [msgspec.convert(row, ReferralListItem) for row in rows.mappings()]

    async def assign_to_mail(
        self, referral_id: UUID, mail_id: UUID, *, include_unassigned: bool
    ) -> User | None:
        """See the port. Of two that claim at once, the second finds the row taken."""
        query = select(*USER).join(referrals, referrals.c.referrer_id == users.c.id)
        own = query.where(referrals.c.id == referral_id, users.c.erased_at.is_(None))
        row = (await self._session.execute(own)).mappings().one_or_none()
        if row is None:
            return None
        referrer = msgspec.convert(row, User)
        free = [referrals.c.referrer_id == referrer.id, referrals.c.told_by.is_(None)]
        if not include_unassigned:
            free.append(referrals.c.id == referral_id)
        await self._session.execute(update(referrals).where(*free).values(told_by=mail_id))
        taken = select(referrals.c.told_by).where(referrals.c.id == referral_id)
        told_by = (await self._session.execute(taken)).scalar_one()
        return referrer if told_by == mail_id else None

    async def _pending(
        self, which: ColumnElement[bool], *, skip_locked: bool = False
    ) -> Referral | None:
        query = (
            select(referrals)
            .where(which, referrals.c.status == ReferralStatus.PENDING)
            .order_by(referrals.c.joined_at)
            .limit(1)
            .with_for_update(skip_locked=skip_locked)
        )
        row = (await self._session.execute(query)).mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Referral)

    async def list_by_mail(self, referrer_id: UUID, mail_id: UUID) -> list[ReferralListItem]:
        """See the port."""
        query = select(*LIST_COLUMNS).join(users, users.c.id == referrals.c.referred_id)
        query = query.where(referrals.c.referrer_id == referrer_id, referrals.c.told_by == mail_id)
        rows = await self._session.execute(query.order_by(referrals.c.id))
        return [msgspec.convert(row, ReferralListItem) for row in rows.mappings()]
