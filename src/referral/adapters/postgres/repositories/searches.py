"""Lists of all codes and referrals in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID

from sqlalchemy import bindparam, select, tuple_

from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.repositories.codes import BY_ID as CODE_BY_ID
from referral.adapters.postgres.repositories.codes import (
    BY_OWNER,
    BY_TEXT,
    NOT_DELETED,
    SELECT,
    has_status,
    text_key,
)
from referral.adapters.postgres.tables import codes, referrals, users
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter, ReferralRecord

FIND_CODE = Statement(SELECT.where(CODE_BY_ID, NOT_DELETED))
CODE_CONDITIONS = {
    "text_key": BY_TEXT,
    "user_id": BY_OWNER,
    "after": codes.c.id < bindparam("after"),
}

SELECT_REFERRAL = select(
    referrals.c.id.label("referral_id"),
    referrals.c.referrer_id,
    users.c.id,
    users.c.email,
    referrals.c.status,
    referrals.c.code,
    referrals.c.joined_at,
    referrals.c.held,
    referrals.c.reason,
    referrals.c.risk_signals,
).join(users, users.c.id == referrals.c.referred_id)
FIND_REFERRAL = Statement(SELECT_REFERRAL.where(referrals.c.id == bindparam("referral_id")))

last = referrals.alias("last")
# A scalar subquery, not a row of two columns: an index can then find the beginning of the page.
LAST_JOINED_AT = select(last.c.joined_at).where(last.c.id == bindparam("after")).scalar_subquery()
REFERRAL_CONDITIONS = {
    "status": referrals.c.status == bindparam("status"),
    "referrer_id": referrals.c.referrer_id == bindparam("referrer_id"),
    "text_key": referrals.c.code_id == select(codes.c.id).where(BY_TEXT).scalar_subquery(),
    "since": referrals.c.joined_at >= bindparam("since"),
    "until": referrals.c.joined_at < bindparam("until"),
    "after": tuple_(referrals.c.joined_at, referrals.c.id)
    < tuple_(LAST_JOINED_AT, bindparam("after")),
}


@cache
def _list_codes(status: CodeStatus | None, *names: str) -> Statement:
    query = SELECT.where(NOT_DELETED, *(CODE_CONDITIONS[name] for name in names))
    if status is not None:
        query = query.where(has_status(status))
    return Statement(query.order_by(codes.c.id.desc()).limit(bindparam("limit")))


@cache
def _list_referrals(*names: str, held: bool | None) -> Statement:
    query = SELECT_REFERRAL.where(*(REFERRAL_CONDITIONS[name] for name in names))
    if held is not None:
        query = query.where(referrals.c.held if held else ~referrals.c.held)
    order = (referrals.c.joined_at.desc(), referrals.c.id.desc())
    return Statement(query.order_by(*order).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresCodeSearch:
    """The codes that are not deleted."""

    connection: DatabaseConnection

    async def find(self, code_id: UUID) -> Code | None:
        return await self.connection.fetch_entity(Code, FIND_CODE, code_id=code_id)

    async def list_page(
        self, wanted: CodeFilter, now: datetime, *, after: UUID | None, limit: int
    ) -> list[Code]:
        text = None if wanted.code is None else text_key(wanted.code)
        named = _not_none(text_key=text, user_id=wanted.user_id, after=after)
        statement = _list_codes(wanted.status, *named)
        return await self.connection.fetch_entities(Code, statement, **named, now=now, limit=limit)


@dataclass(frozen=True, slots=True)
class PostgresReferralSearch:
    """All referrals, with the addresses of the referred users."""

    connection: DatabaseConnection

    async def find(self, referral_id: UUID) -> ReferralRecord | None:
        return await self.connection.fetch_entity(
            ReferralRecord, FIND_REFERRAL, referral_id=referral_id
        )

    async def list_page(
        self, wanted: ReferralFilter, *, after: UUID | None, limit: int
    ) -> list[ReferralRecord]:
        named = _not_none(
            status=wanted.status,
            referrer_id=wanted.referrer_id,
            text_key=None if wanted.code is None else text_key(wanted.code),
            since=wanted.since,
            until=wanted.until,
            after=after,
        )
        statement = _list_referrals(*named, held=wanted.held)
        return await self.connection.fetch_entities(ReferralRecord, statement, **named, limit=limit)


def _not_none(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
