"""Lists of all codes and referrals in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID

from sqlalchemy import ColumnElement, Text, Uuid, bindparam, cast, literal_column, select, tuple_

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
from referral.adapters.postgres.repositories.codes_by_status import CodesByStatus
from referral.adapters.postgres.tables import codes, referrals, users
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.referrals import ReferralStatus
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
FIND_CODE_ID = select(codes.c.id).where(BY_TEXT)
BY_CODE_OF_REFERRER = referrals.c.code_id == (
    FIND_CODE_ID.where(codes.c.user_id == bindparam("referrer_id")).scalar_subquery()
)
REFERRER_TEXT = cast(bindparam("referrer_id", type_=Uuid), Text)
REFERRER_AND_STATUS = literal_column(
    "(referrals.referrer_id::text || ' ' || referrals.status)", Text
)
REFERRAL_CONDITIONS = {
    "referrer_id": referrals.c.referrer_id == bindparam("referrer_id"),
    "text_key": referrals.c.code_id == FIND_CODE_ID.scalar_subquery(),
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
def _list_referrals(*names: str, status: ReferralStatus | None, held: bool | None) -> Statement:
    """Compile the list with these parameters; the other values are literals, for partial indexes.

    No condition is one that others imply: an index has one beginning, so the rows between two
    would be read and dropped. A page that has a predecessor is older than `until`, and all
    referrals by a code have its owner as referrer.
    """
    conditions = {name: REFERRAL_CONDITIONS[name] for name in names}
    if status is not None:
        conditions["status"] = referrals.c.status == literal_column(f"'{status}'")
    if held is not None:
        conditions["held"] = referrals.c.held if held else ~referrals.c.held
    if "after" in conditions:
        conditions.pop("until", None)
    _replace_pairs(conditions, status, is_held=held is True)
    order = (referrals.c.joined_at.desc(), referrals.c.id.desc())
    query = SELECT_REFERRAL.where(*conditions.values()).order_by(*order)
    return Statement(query.limit(bindparam("limit")))


def _replace_pairs(
    conditions: dict[str, ColumnElement[bool]], status: str | None, *, is_held: bool
) -> None:
    """Replace conditions by those on the expressions of an index, so that the planner uses it."""
    names = conditions.keys()
    if {"text_key", "referrer_id"} <= names:
        conditions["text_key"] = BY_CODE_OF_REFERRER
        del conditions["referrer_id"]
    elif {"status", "referrer_id"} <= names:
        pair = REFERRER_TEXT + literal_column(f"' {status}'")
        conditions["status"] = pair == REFERRER_AND_STATUS
        del conditions["referrer_id"]
    elif is_held and "referrer_id" in names:
        conditions["referrer_id"] = cast(referrals.c.referrer_id, Text) == REFERRER_TEXT
    elif {"held", "status"} <= names and "text_key" not in names:
        conditions["status_text"] = literal_column(
            "(referrals.status || ' ')", Text
        ) == literal_column(f"'{status} '")


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
        if text is None and wanted.user_id is None and wanted.status is not None:
            by_status = CodesByStatus(self.connection)
            return await by_status.list_page(wanted.status, now, after=after, limit=limit)
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
            referrer_id=wanted.referrer_id,
            text_key=None if wanted.code is None else text_key(wanted.code),
            since=wanted.since,
            until=wanted.until,
            after=after,
        )
        statement = _list_referrals(*named, status=wanted.status, held=wanted.held)
        return await self.connection.fetch_entities(ReferralRecord, statement, **named, limit=limit)


def _not_none(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
