"""The two reads that are asked most, past SQLAlchemy: one statement each, by the driver itself.

Look-ups that come at the same time share a statement; `docs/performance.md` has the figures.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from referral.adapters.batching import RequestCoalescer
from referral.adapters.postgres.pool import DriverPool
from referral.core.entities.account_view import AccountView
from referral.core.entities.codes import Code
from referral.core.entities.referrals import ReferralListItem
from referral.core.entities.users import Profile, Referrer, User

LOOK_UP = """
SELECT u.email_key, u.email_verified, c.id, c.user_id, c.text, c.created_at, c.expires_at,
       c.max_uses, c.uses, c.enabled
FROM users u JOIN codes c ON c.user_id = u.id AND c.enabled
WHERE u.email_key = ANY($1) AND u.blocked_at IS NULL
"""

ACCOUNT = """
SELECT to_jsonb(u) AS user,
    (SELECT jsonb_build_object('id', r.id, 'email', r.email)
     FROM referrals f JOIN users r ON r.id = f.referrer_id
     WHERE f.referred_id = u.id AND r.erased_at IS NULL) AS referrer,
    (SELECT coalesce(sum(uses), 0) FROM codes WHERE user_id = u.id) AS referral_count,
    (SELECT jsonb_agg(j) FROM
        (SELECT f.id AS referral_id, m.id, m.email, f.status, f.code, f.joined_at
         FROM referrals f JOIN users m ON m.id = f.referred_id
         WHERE f.referrer_id = u.id ORDER BY f.id DESC LIMIT $2) j) AS recent_referrals,
    (SELECT to_jsonb(c) FROM codes c WHERE c.user_id = u.id AND c.enabled) AS code,
    (SELECT to_jsonb(p) FROM profiles p WHERE p.user_id = u.id) AS profile
FROM users u WHERE u.id = $1 AND u.erased_at IS NULL
"""

MAY_CHANGE = """
SELECT 1 FROM users WHERE id = $1
AND (blocked_at IS NOT NULL OR EXISTS (SELECT FROM sessions WHERE id = $2))
"""

USER = msgspec.json.Decoder(User)
REFERRER = msgspec.json.Decoder(Referrer)
CODE = msgspec.json.Decoder(Code)
JOINED = msgspec.json.Decoder(list[ReferralListItem])
PROFILE = msgspec.json.Decoder(Profile)


class LookUp(NamedTuple):
    """One question of the statement that those of a moment share."""

    email_key: str
    confirmed_only: bool


class PostgresReadModel:
    """See the port `Reads`."""

    def __init__(self, pool: DriverPool) -> None:
        """Take a pool of `make_pool`."""
        self._pool = pool
        self._look_ups: RequestCoalescer[LookUp, Code | None] = RequestCoalescer(self._look_up)

    async def code_of(self, email_key: str, *, confirmed_only: bool) -> Code | None:
        """See the port."""
        return await self._look_ups.ask(LookUp(email_key, confirmed_only))

    async def may_change(self, user_id: UUID, session_id: UUID) -> bool:
        """See the port."""
        return await self._pool.fetch_one(MAY_CHANGE, user_id, session_id) is not None

    async def account(self, user_id: UUID, recent: int, now: datetime) -> AccountView | None:
        """See the port."""
        row = await self._pool.fetch_one(ACCOUNT, user_id, recent)
        if row is None:
            return None
        code = CODE.decode(row["code"]) if row["code"] else None
        return AccountView(
            user=USER.decode(row["user"]),
            referrer=REFERRER.decode(row["referrer"]) if row["referrer"] else None,
            referral_count=row["referral_count"],
            recent_referrals=JOINED.decode(row["recent_referrals"] or "[]"),
            active_code=code if code is not None and code.is_active(now) else None,
            now=now,
            profile=PROFILE.decode(row["profile"]) if row["profile"] else None,
        )

    async def _look_up(self, asked: list[LookUp]) -> list[Code | None]:
        rows = await self._pool.fetch(LOOK_UP, sorted({one.email_key for one in asked}))
        found: dict[LookUp, Code] = {}
        for email_key, email_verified, *code in rows:
            found[LookUp(email_key, confirmed_only=False)] = made = Code(*code)
            if email_verified:
                found[LookUp(email_key, confirmed_only=True)] = made
        return [found.get(one) for one in asked]
