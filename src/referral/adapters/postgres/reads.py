"""The two reads that are asked most, past SQLAlchemy: one statement each, by the driver itself.

Look-ups that come at the same time share a statement; `docs/performance.md` has the figures.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from referral.adapters.batches import Trips
from referral.adapters.measures import Measure
from referral.adapters.postgres import pooler
from referral.adapters.postgres.admission import Admission
from referral.adapters.postgres.database import PATIENCE, SECONDS
from referral.adapters.postgres.outages import unavailable
from referral.core.model import Account, Code, Joined, Profile, User

CONNECTIONS = 4
IDLE_SECONDS = 60.0

LOOK_UP = """
SELECT u.email_key, c.id, c.user_id, c.text, c.created_at, c.expires_at, c.max_uses, c.uses,
       c.enabled
FROM users u JOIN codes c ON c.user_id = u.id AND c.enabled
WHERE u.email_key = ANY($1)
"""

ACCOUNT = """
SELECT to_jsonb(u) AS user,
    (SELECT to_jsonb(r) FROM referrals f JOIN users r ON r.id = f.referrer_id
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


USER = msgspec.json.Decoder(User)
CODE = msgspec.json.Decoder(Code)
JOINED = msgspec.json.Decoder(list[Joined])
PROFILE = msgspec.json.Decoder(Profile)


@asynccontextmanager
async def make_pool(
    url: str, connection_class: type[asyncpg.Connection] = asyncpg.Connection
) -> AsyncIterator[asyncpg.Pool]:
    """Make a pool for a `postgresql://` URL; it connects when it is first used."""
    async with asyncpg.create_pool(
        pooler.plain(url),
        connection_class=connection_class,
        min_size=0,
        max_size=CONNECTIONS,
        max_inactive_connection_lifetime=IDLE_SECONDS,
        timeout=SECONDS,
        command_timeout=SECONDS,
        reset=_leave,
        server_settings=pooler.server_settings(url),
        **pooler.driver_options(url),
    ) as pool:
        yield pool


async def _leave(_: asyncpg.Connection) -> None:
    """Leave a connection as it is when it is given back: single reads change nothing about it."""


class PostgresReads:
    """See the port `Reads`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Take a pool of `make_pool`."""
        self._pool = pool
        self._admission = Admission(CONNECTIONS, PATIENCE)
        self._look_ups: Trips[str, Code | None] = Trips(self._look_up)

    async def code_of(self, email_key: str) -> Code | None:
        """See the port."""
        return await self._look_ups.ask(email_key)

    async def account(self, user_id: UUID, recent: int, now: datetime) -> Account | None:
        """See the port."""
        async with self._connection() as connection:
            row = await connection.fetchrow(ACCOUNT, user_id, recent)
        if row is None:
            return None
        code = CODE.decode(row["code"]) if row["code"] else None
        return Account(
            user=USER.decode(row["user"]),
            referrer=USER.decode(row["referrer"]) if row["referrer"] else None,
            referral_count=row["referral_count"],
            recent_referrals=JOINED.decode(row["recent_referrals"] or "[]"),
            active_code=code if code is not None and code.is_active(now) else None,
            now=now,
            profile=PROFILE.decode(row["profile"]) if row["profile"] else None,
        )

    def measures(self) -> Iterator[Measure]:
        """See `Measured`."""
        return self._admission.measures("reads")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._admission.place():
            with unavailable():
                async with self._pool.acquire(timeout=SECONDS) as connection:
                    try:
                        yield connection
                    except TimeoutError:
                        # Otherwise the pool would wait as long again for the server to cancel.
                        connection.terminate()
                        raise

    async def _look_up(self, email_keys: list[str]) -> list[Code | None]:
        async with self._connection() as connection:
            rows = await connection.fetch(LOOK_UP, sorted(set(email_keys)))
        found = {row[0]: Code(*row[1:]) for row in rows}
        return [found.get(email_key) for email_key in email_keys]
