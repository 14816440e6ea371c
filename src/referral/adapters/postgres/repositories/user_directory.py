"""Users as admins and clients see them, in PostgreSQL."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import Select, Text, bindparam, cast, func, literal_column, select

from referral.adapters.postgres.connection import DatabaseConnection, Statement, to_entity
from referral.adapters.postgres.repositories.users import NOT_ERASED, USER_COLUMNS
from referral.adapters.postgres.tables import codes, referrals, users
from referral.core.entities.account_view import UserDetails, UserFilter
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Referrer, Role, User

referrers = users.alias("referrers")

USES = (
    select(func.coalesce(func.sum(codes.c.uses), 0))
    .where(codes.c.user_id == users.c.id)
    .scalar_subquery()
)
codeless = referrals.alias("codeless")
REFERRALS_WITHOUT_CODE = (
    select(func.count())
    .where(
        codeless.c.referrer_id == users.c.id,
        codeless.c.code_id.is_(None),
        codeless.c.status != literal_column(f"'{ReferralStatus.REJECTED}'"),
    )
    .scalar_subquery()
)
REFERRAL_COUNT = USES + REFERRALS_WITHOUT_CODE
SELECT = (
    select(
        *USER_COLUMNS,
        referrers.c.id.label("referrer_id"),
        referrers.c.email.label("referrer_email"),
        REFERRAL_COUNT.label("referral_count"),
    )
    .outerjoin(referrals, referrals.c.referred_id == users.c.id)
    .outerjoin(
        referrers, (referrers.c.id == referrals.c.referrer_id) & referrers.c.erased_at.is_(None)
    )
    .where(NOT_ERASED)
)
FIND = Statement(SELECT.where(users.c.id == bindparam("user_id")))
FIND_BY_EXTERNAL_ID = Statement(SELECT.where(users.c.external_id == bindparam("external_id")))


@cache
def _list_page(user_filter: UserFilter, *, is_first: bool) -> Statement:
    """Compile the list for a filter, whose `email_key` is only a placeholder here.

    The other values are literals: the planner must see which partial index covers them.
    """
    query: Select[Any] = SELECT
    if user_filter.email_key is not None:
        query = query.where(users.c.email_key == bindparam("email_key"))
    if user_filter.role is not None:
        query = query.where(users.c.role == literal_column(f"'{user_filter.role.value}'"))
    if user_filter.blocked is not None:
        is_null = users.c.blocked_at.is_(None)
        query = query.where(~is_null if user_filter.blocked else is_null)
    if user_filter.verified is not None:
        query = query.where(users.c.email_verified.is_(user_filter.verified))
        if user_filter.blocked or user_filter.role is Role.ADMIN:
            # The expression of partial indexes, whose values PostgreSQL counts.
            verified = literal_column(f"'{str(user_filter.verified).lower()}'", Text)
            query = query.where(cast(users.c.email_verified, Text) == verified)
    if not is_first:
        query = query.where(users.c.id < bindparam("after"))
    return Statement(query.order_by(users.c.id.desc()).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresUserDirectory:
    """The accounts that are not erased."""

    connection: DatabaseConnection

    async def find(self, user_id: UUID) -> UserDetails | None:
        row = await self.connection.fetch_one(FIND, user_id=user_id)
        return None if row is None else _details(row)

    async def find_by_external_id(self, external_id: str) -> UserDetails | None:
        row = await self.connection.fetch_one(FIND_BY_EXTERNAL_ID, external_id=external_id)
        return None if row is None else _details(row)

    async def list_page(
        self, user_filter: UserFilter, *, after: UUID | None, limit: int
    ) -> list[UserDetails]:
        email_key = user_filter.email_key
        shape = replace(user_filter, email_key=None if email_key is None else "")
        statement = _list_page(shape, is_first=after is None)
        rows = await self.connection.fetch(statement, email_key=email_key, after=after, limit=limit)
        return [_details(row) for row in rows]


def _details(row: asyncpg.Record) -> UserDetails:
    referrer_id = row["referrer_id"]
    return UserDetails(
        user=to_entity(User, row),
        referrer=Referrer(referrer_id, row["referrer_email"]) if referrer_id else None,
        referral_count=row["referral_count"],
    )
