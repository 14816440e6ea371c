"""What mails to users need of the database: two statements for all that are written at a time."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from referral.adapters.batching import RequestCoalescer
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.postgres.repositories.mail_quota import quota_digest
from referral.adapters.postgres.repositories.users import USER_FIELDS
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import User
from referral.core.ports.security import Fingerprinter

USER_COLUMNS = ", ".join(f"users.{name}" for name in USER_FIELDS)

EMAIL_KEYS = "SELECT id, email_key FROM users WHERE id = ANY($1) AND erased_at IS NULL"

# Addresses are taken in one order by all, so that two that take several wait in no circle.
RESERVE = f"""
WITH asked AS (
    SELECT mail, digest, purpose, ends, place, at, places, within, {USER_COLUMNS}
    FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[], $5::timestamptz[],
        $6::bytea[], $7::timestamptz[], $8::integer[], $9::interval[])
        AS asked(mail, user_id, digest, purpose, ends, place, at, places, within)
    JOIN users ON users.id = asked.user_id AND users.erased_at IS NULL
    WHERE purpose IS DISTINCT FROM 'confirm' OR NOT email_verified
    ORDER BY email_key, mail
), taken AS MATERIALIZED (
    SELECT asked.*, CASE WHEN places IS NOT NULL THEN
        take_mail_place(mail, place, at, places, within)
    END AS free_at FROM asked
), kept AS (
    INSERT INTO one_time_tokens (digest, user_id, purpose, expires_at)
    SELECT digest, id, purpose, ends FROM taken WHERE digest IS NOT NULL AND free_at IS NULL
)
SELECT mail, free_at, {", ".join(USER_FIELDS)} FROM taken
"""  # noqa: S608 - nothing but names of columns


class PostgresMailReservations:
    """See the port `MailReservations`."""

    def __init__(self, pool: DriverPool, fingerprints: Fingerprinter) -> None:
        """Take a pool of `make_pool`, and what addresses are stored under."""
        self._pool = pool
        self._fingerprints = fingerprints
        self._requests: RequestCoalescer[MailReservationRequest, MailReservation | None] = (
            RequestCoalescer(self._reserve)
        )

    async def reserve(self, request: MailReservationRequest) -> MailReservation | None:
        """See the port."""
        return await self._requests.submit(request)

    async def _reserve(self, asked: list[MailReservationRequest]) -> list[MailReservation | None]:
        places = await self._quota_digests({one.user_id for one in asked if one.slots is not None})
        columns = zip(*(_row(one, places) for one in asked), strict=True)
        rows = await self._pool.fetch(RESERVE, *map(list, columns))
        found = {row[0]: MailReservation(msgspec.convert(dict(row), User), row[1]) for row in rows}
        return [found.get(one.mail_id) for one in asked]

    async def _quota_digests(self, user_ids: set[UUID]) -> dict[UUID, bytes]:
        """Return what mails to users are counted under: the database has no key for the digests."""
        rows = await self._pool.fetch(EMAIL_KEYS, list(user_ids)) if user_ids else []
        return {user_id: quota_digest(self._fingerprints, email_key) for user_id, email_key in rows}


def _row(
    request: MailReservationRequest, quota_digests: Mapping[UUID, bytes]
) -> tuple[object, ...]:
    token = request.token
    return (
        request.mail_id,
        request.user_id,
        token and token.digest,
        token and token.purpose,
        token and token.expires_at,
        quota_digests.get(request.user_id),
        request.requested_at,
        request.slots,
        request.window,
    )
