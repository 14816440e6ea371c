"""The most frequent reads: one statement each, sent by asyncpg from a pool of its own.

Concurrent lookups share a statement; `docs/performance.md` has the figures.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec

from referral.adapters.batching import RequestCoalescer
from referral.adapters.postgres.connection import to_entity
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.postgres.repositories.codes import text_key
from referral.core.entities.account_view import AccountView
from referral.core.entities.codes import Code
from referral.core.entities.referrals import ReferralListItem
from referral.core.entities.users import Profile, Referrer, User

CODES_BY_EMAIL = """
SELECT u.email_key, u.email_verified, c.id, c.user_id, c.text, c.created_at, c.expires_at,
       c.max_uses, c.uses, c.enabled
FROM users u JOIN codes c ON c.user_id = u.id AND c.enabled
WHERE u.email_key = ANY($1) AND u.blocked_at IS NULL
"""

CODE_BY_TEXT = """
SELECT c.id, c.user_id, c.text, c.created_at, c.expires_at, c.max_uses, c.uses, c.enabled
FROM codes c JOIN users u ON u.id = c.user_id AND u.blocked_at IS NULL
WHERE c.text_key = $1 AND c.deleted_at IS NULL
"""

ACCOUNT = """
SELECT to_jsonb(u) AS user,
    (SELECT jsonb_build_object('id', r.id, 'email', r.email)
     FROM referrals f JOIN users r ON r.id = f.referrer_id
     WHERE f.referred_id = u.id AND r.erased_at IS NULL) AS referrer,
    (SELECT coalesce(sum(uses), 0) FROM codes WHERE user_id = u.id)
    + (SELECT count(*) FROM referrals f
       WHERE f.referrer_id = u.id AND f.code_id IS NULL AND f.status <> 'rejected')
    AS referral_count,
    (SELECT jsonb_agg(j) FROM
        (SELECT f.id AS referral_id, m.id, m.email, f.status, f.code, f.joined_at
         FROM referrals f JOIN users m ON m.id = f.referred_id
         WHERE f.referrer_id = u.id ORDER BY f.id DESC LIMIT $2) j) AS recent_referrals,
    (SELECT to_jsonb(c) FROM codes c WHERE c.user_id = u.id AND c.enabled) AS code,
    (SELECT to_jsonb(p) FROM profiles p WHERE p.user_id = u.id) AS profile
FROM users u WHERE u.erased_at IS NULL AND u.id = $1
"""

LOGGED_IN_ACCOUNT = ACCOUNT.replace(
    "$1", "(SELECT user_id FROM login_sessions WHERE digest = $1 AND expires_at > $3)"
)

HAS_SESSION_OR_IS_BLOCKED = """
SELECT 1 FROM users WHERE id = $1
AND (blocked_at IS NOT NULL OR EXISTS (SELECT FROM sessions WHERE id = $2))
"""

USER_DECODER = msgspec.json.Decoder(User)
REFERRER_DECODER = msgspec.json.Decoder(Referrer)
CODE_DECODER = msgspec.json.Decoder(Code)
REFERRALS_DECODER = msgspec.json.Decoder(list[ReferralListItem])
PROFILE_DECODER = msgspec.json.Decoder(Profile)


class CodeLookup(NamedTuple):
    """One lookup among those that share a statement."""

    email_key: str
    confirmed_only: bool


class PostgresReadModel:
    """The read model over a pool of asyncpg connections."""

    def __init__(self, pool: DriverPool) -> None:
        """Take a pool of `make_driver_pool`."""
        self._pool = pool
        self._lookups: RequestCoalescer[CodeLookup, Code | None] = RequestCoalescer(
            self._fetch_codes
        )

    async def find_code(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        return await self._lookups.submit(CodeLookup(email_key, confirmed_only))

    async def find_code_by_text(self, text: str) -> Code | None:
        row = await self._pool.fetch_one(CODE_BY_TEXT, text_key(text))
        return None if row is None else to_entity(Code, row)

    async def has_session_or_is_blocked(self, user_id: UUID, session_id: UUID) -> bool:
        return (
            await self._pool.fetch_one(HAS_SESSION_OR_IS_BLOCKED, user_id, session_id) is not None
        )

    async def find_account(
        self, user_id: UUID, recent_limit: int, now: datetime
    ) -> AccountView | None:
        row = await self._pool.fetch_one(ACCOUNT, user_id, recent_limit)
        return None if row is None else _account_view(row, now)

    async def find_logged_in_account(
        self, login_digest: bytes, recent_limit: int, now: datetime
    ) -> AccountView | None:
        row = await self._pool.fetch_one(LOGGED_IN_ACCOUNT, login_digest, recent_limit, now)
        return None if row is None else _account_view(row, now)

    async def _fetch_codes(self, lookups: list[CodeLookup]) -> list[Code | None]:
        keys = sorted({lookup.email_key for lookup in lookups})
        found: dict[CodeLookup, Code] = {}
        for row in await self._pool.fetch(CODES_BY_EMAIL, keys):
            code, email_key = to_entity(Code, row), row["email_key"]
            found[CodeLookup(email_key, confirmed_only=False)] = code
            if row["email_verified"]:
                found[CodeLookup(email_key, confirmed_only=True)] = code
        return [found.get(lookup) for lookup in lookups]


def _account_view(row: asyncpg.Record, now: datetime) -> AccountView:
    code = CODE_DECODER.decode(row["code"]) if row["code"] else None
    return AccountView(
        user=USER_DECODER.decode(row["user"]),
        referrer=REFERRER_DECODER.decode(row["referrer"]) if row["referrer"] else None,
        referral_count=row["referral_count"],
        recent_referrals=REFERRALS_DECODER.decode(row["recent_referrals"] or "[]"),
        active_code=code if code is not None and code.is_active(now) else None,
        as_of=now,
        profile=PROFILE_DECODER.decode(row["profile"]) if row["profile"] else None,
        enabled_code=code,
    )
