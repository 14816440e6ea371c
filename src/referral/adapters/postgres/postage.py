"""What mails to users need of the database: one statement for all that are written at a time."""

import asyncpg
import msgspec

from referral.adapters.batches import Trips
from referral.adapters.postgres.database import SECONDS
from referral.adapters.postgres.outages import unavailable
from referral.adapters.postgres.users import NAMES
from referral.core.model import Postage, Taken, User

USER = ", ".join(f"users.{name}" for name in NAMES)

# Addresses are taken in one order by all, so that two that take several wait in no circle.
TAKE = f"""
WITH asked AS (
    SELECT mail, digest, purpose, ends, counts, at, places, within, {USER}
    FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[], $5::timestamptz[],
        $6::boolean[], $7::timestamptz[], $8::integer[], $9::interval[])
        AS asked(mail, user_id, digest, purpose, ends, counts, at, places, within)
    JOIN users ON users.id = asked.user_id AND users.erased_at IS NULL
    WHERE purpose IS DISTINCT FROM 'confirm' OR NOT email_verified
    ORDER BY email_key, mail
), taken AS MATERIALIZED (
    SELECT asked.*, CASE WHEN counts THEN
        take_mail_place(mail, sha256(convert_to(email_key, 'UTF8')), at, places, within)
    END AS free_at FROM asked
), kept AS (
    INSERT INTO one_time_tokens (digest, user_id, purpose, expires_at)
    SELECT digest, id, purpose, ends FROM taken WHERE digest IS NOT NULL AND free_at IS NULL
)
SELECT mail, free_at, {", ".join(NAMES)} FROM taken
"""  # noqa: S608 - nothing but names of columns


class PostgresPostOffice:
    """See the port `PostOffice`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Take a pool of `make_pool`."""
        self._pool = pool
        self._trips: Trips[Postage, Taken | None] = Trips(self._take)

    async def take(self, postage: Postage) -> Taken | None:
        """See the port."""
        return await self._trips.ask(postage)

    async def _take(self, asked: list[Postage]) -> list[Taken | None]:
        columns = zip(*map(_row, asked), strict=True)
        with unavailable():
            async with self._pool.acquire(timeout=SECONDS) as connection:
                rows = await connection.fetch(TAKE, *map(list, columns))
        found = {row[0]: Taken(msgspec.convert(dict(row), User), row[1]) for row in rows}
        return [found.get(one.mail) for one in asked]


def _row(postage: Postage) -> tuple[object, ...]:
    token = postage.token
    return (
        postage.mail,
        postage.user_id,
        token and token.digest,
        token and token.purpose,
        token and token.expires_at,
        postage.places is not None,
        postage.at,
        postage.places,
        postage.within,
    )
