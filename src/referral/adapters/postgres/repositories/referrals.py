"""Referrals in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import BindParameter, and_, bindparam, case, func, literal_column, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.repositories.users import USER_COLUMNS
from referral.adapters.postgres.tables import referrals, users
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import AlreadyReferred

BY_ID = referrals.c.id == bindparam("referral_id")
BY_REFERRER = referrals.c.referrer_id == bindparam("referrer_id")
BY_REFERRED = referrals.c.referred_id == bindparam("referred_id")
NOW: BindParameter[datetime] = bindparam("now", type_=referrals.c.decided_at.type)
# A literal: the planner must see that the partial index covers it.
PENDING = referrals.c.status == literal_column(f"'{ReferralStatus.PENDING}'")
SELECT_LIST = select(
    referrals.c.id.label("referral_id"),
    users.c.id,
    users.c.email,
    referrals.c.status,
    referrals.c.code,
    referrals.c.joined_at,
).join(users, users.c.id == referrals.c.referred_id)

ADD = insert_entity(referrals, Referral)
LOCK_PENDING = Statement(select(referrals).where(BY_REFERRED, PENDING).with_for_update())
LOCK_OVERDUE = Statement(
    select(referrals)
    .where(
        PENDING,
        referrals.c.expires,
        ~referrals.c.held,
        referrals.c.joined_at <= bindparam("joined_before"),
    )
    .order_by(referrals.c.joined_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
LOCK = Statement(select(referrals).where(BY_ID).with_for_update())
DECISION_TIMES = {
    column.name: case((bindparam("status") == status, func.coalesce(column, NOW)), else_=column)
    for status, column in (
        (ReferralStatus.CONFIRMED, referrals.c.confirmed_at),
        (ReferralStatus.REJECTED, referrals.c.rejected_at),
    )
}
SAVE_DECISION = Statement(
    update(referrals)
    .where(BY_ID)
    .values(
        held=False,
        status=bindparam("status"),
        reason=bindparam("reason"),
        decided_at=NOW,
        **DECISION_TIMES,
    )
)
SET_STATUS = Statement(
    update(referrals).where(BY_ID).values(held=False, status=bindparam("status"), **DECISION_TIMES)
)
SAVE_RISK = Statement(
    update(referrals)
    .where(BY_ID)
    .values(held=bindparam("held"), risk_signals=bindparam("risk_signals"))
)
FIND_BY_REFERRED = Statement(select(referrals).where(BY_REFERRED))
FIND_REFERRER = Statement(
    select(*USER_COLUMNS)
    .join(referrals, referrals.c.referrer_id == users.c.id)
    .where(BY_ID, users.c.erased_at.is_(None))
)
UNASSIGNED = and_(BY_REFERRER, referrals.c.told_by.is_(None))
ASSIGN = Statement(update(referrals).where(UNASSIGNED, BY_ID).values(told_by=bindparam("mail_id")))
ASSIGN_ALL = Statement(update(referrals).where(UNASSIGNED).values(told_by=bindparam("mail_id")))
FIND_MAIL_ID = Statement(select(referrals.c.told_by).where(BY_ID))
LIST_BY_MAIL = Statement(
    SELECT_LIST.where(BY_REFERRER, referrals.c.told_by == bindparam("mail_id")).order_by(
        referrals.c.id
    )
)


@cache
def _list_page(*, by_status: bool, is_first: bool) -> Statement:
    query = SELECT_LIST.where(BY_REFERRER)
    if by_status:
        query = query.where(referrals.c.status == bindparam("status"))
    if not is_first:
        query = query.where(referrals.c.id < bindparam("after"))
    return Statement(query.order_by(referrals.c.id.desc()).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresReferralRepository:
    """The table of referrals."""

    connection: DatabaseConnection

    async def add(self, referral: Referral) -> None:
        try:
            await self.connection.execute(ADD, **values_of(referral))
        except UniqueViolationError as error:
            if error.constraint_name != "uq_referrals_referred_id":
                raise
            raise AlreadyReferred from error

    async def lock_pending(self, user_id: UUID) -> Referral | None:
        return await self.connection.fetch_entity(Referral, LOCK_PENDING, referred_id=user_id)

    async def lock_overdue(self, joined_before: datetime) -> Referral | None:
        return await self.connection.fetch_entity(
            Referral, LOCK_OVERDUE, joined_before=joined_before
        )

    async def lock(self, referral_id: UUID) -> Referral | None:
        return await self.connection.fetch_entity(Referral, LOCK, referral_id=referral_id)

    async def save_decision(self, referral: Referral) -> None:
        await self.connection.execute(
            SAVE_DECISION,
            referral_id=referral.id,
            status=referral.status,
            reason=referral.reason,
            now=referral.decided_at,
        )

    async def save_risk(self, referral: Referral) -> None:
        await self.connection.execute(SAVE_RISK, referral_id=referral.id, **values_of(referral))

    async def set_status(self, referral_id: UUID, status: ReferralStatus, now: datetime) -> None:
        await self.connection.execute(SET_STATUS, referral_id=referral_id, status=status, now=now)

    async def find_by_referred(self, user_id: UUID) -> Referral | None:
        return await self.connection.fetch_entity(Referral, FIND_BY_REFERRED, referred_id=user_id)

    async def list_page(
        self, user_id: UUID, *, status: ReferralStatus | None, after: UUID | None, limit: int
    ) -> list[ReferralListItem]:
        statement = _list_page(by_status=status is not None, is_first=after is None)
        return await self.connection.fetch_entities(
            ReferralListItem,
            statement,
            referrer_id=user_id,
            status=status,
            after=after,
            limit=limit,
        )

    async def assign_to_mail(
        self, referral_id: UUID, mail_id: UUID, *, include_unassigned: bool
    ) -> User | None:
        """See the port. Of two concurrent calls, the second one finds the row assigned."""
        referrer = await self.connection.fetch_entity(User, FIND_REFERRER, referral_id=referral_id)
        if referrer is None:
            return None
        await self.connection.execute(
            ASSIGN_ALL if include_unassigned else ASSIGN,
            referrer_id=referrer.id,
            referral_id=referral_id,
            mail_id=mail_id,
        )
        assigned_to = await self.connection.fetch_value(UUID, FIND_MAIL_ID, referral_id=referral_id)
        return referrer if assigned_to == mail_id else None

    async def list_by_mail(self, referrer_id: UUID, mail_id: UUID) -> list[ReferralListItem]:
        return await self.connection.fetch_entities(
            ReferralListItem, LIST_BY_MAIL, referrer_id=referrer_id, mail_id=mail_id
        )
