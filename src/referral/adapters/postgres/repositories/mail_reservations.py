"""Reservations of mails to users: two statements for all reservations of a moment."""

from collections.abc import Mapping
from uuid import UUID

from referral.adapters.batching import RequestCoalescer
from referral.adapters.postgres.connection import to_entity
from referral.adapters.postgres.pool import DriverPool
from referral.adapters.postgres.repositories.mail_quota import quota_digest
from referral.adapters.postgres.repositories.users import USER_FIELDS
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import User
from referral.core.ports.security import Fingerprinter

USER_COLUMNS = ", ".join(f"users.{name}" for name in USER_FIELDS)

EMAIL_KEYS = "SELECT id, email_key FROM users WHERE id = ANY($1) AND erased_at IS NULL"

# A change of the address waits for the lock, and then deletes the token that was mailed to the old
# address. All callers lock the quotas in the order of the addresses: two batches cannot deadlock.
RESERVE = f"""
WITH requests AS (
    SELECT mail_id, digest, purpose, expires_at, quota, requested_at, slots, period, {USER_COLUMNS}
    FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[], $5::timestamptz[],
        $6::bytea[], $7::timestamptz[], $8::integer[], $9::interval[])
        AS row(mail_id, user_id, digest, purpose, expires_at, quota, requested_at, slots, period)
    JOIN users ON users.id = row.user_id AND users.erased_at IS NULL
    WHERE purpose IS DISTINCT FROM 'confirm' OR NOT email_verified
    ORDER BY email_key, mail_id
    FOR KEY SHARE OF users
), reservations AS MATERIALIZED (
    SELECT requests.*, CASE WHEN slots IS NOT NULL THEN
        take_mail_place(mail_id, quota, requested_at, slots, period)
    END AS retry_at FROM requests
), tokens AS (
    INSERT INTO one_time_tokens (digest, user_id, purpose, expires_at)
    SELECT digest, id, purpose, expires_at FROM reservations
    WHERE digest IS NOT NULL AND retry_at IS NULL
)
SELECT mail_id, retry_at, {", ".join(USER_FIELDS)} FROM reservations
"""  # noqa: S608 - nothing but names of columns


class PostgresMailReservations:
    """Mail reservations over a pool of asyncpg connections."""

    def __init__(self, pool: DriverPool, fingerprinter: Fingerprinter) -> None:
        """Take a pool of `make_driver_pool`, and the fingerprinter of the quotas."""
        self._pool = pool
        self._fingerprinter = fingerprinter
        self._requests: RequestCoalescer[MailReservationRequest, MailReservation | None] = (
            RequestCoalescer(self._reserve)
        )

    async def reserve(self, request: MailReservationRequest) -> MailReservation | None:
        return await self._requests.submit(request)

    async def _reserve(
        self, requests: list[MailReservationRequest]
    ) -> list[MailReservation | None]:
        limited = {request.user_id for request in requests if request.slots is not None}
        digests = await self._quota_digests(limited)
        columns = zip(*(_row(request, digests) for request in requests), strict=True)
        found = {
            row["mail_id"]: MailReservation(to_entity(User, row), row["retry_at"])
            for row in await self._pool.fetch(RESERVE, *map(list, columns))
        }
        return [found.get(request.mail_id) for request in requests]

    async def _quota_digests(self, user_ids: set[UUID]) -> dict[UUID, bytes]:
        """Return the digest of each user's quota; the database has no key to compute them."""
        rows = await self._pool.fetch(EMAIL_KEYS, list(user_ids)) if user_ids else []
        return {
            user_id: quota_digest(self._fingerprinter, email_key) for user_id, email_key in rows
        }


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
