"""The mail quota: a maximum of mails to one address in each window."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NewType
from uuid import UUID

from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.jobs import JobContext
from referral.core.entities.mail import MailReservationRequest
from referral.core.entities.rate_limits import Rate
from referral.core.entities.users import User
from referral.core.errors import RescheduleJob
from referral.core.ports.delivery import MailReservations
from referral.core.ports.repositories import Repositories
from referral.core.ports.system import Clock

MailRate = NewType("MailRate", Rate)
"""The maximum of mails to one address."""

RESERVED_MAIL_SLOTS = 1
"""Slots of the quota that are reserved for mails requested by the user."""


@dataclass(frozen=True, slots=True)
class ReserveSlotInTransaction:
    """Count a mail against a quota, in the caller's transaction.

    A quota is named by the canonical address, or by `password_reset_quota`.
    """

    clock: Clock
    rate: MailRate

    async def __call__(
        self, repositories: Repositories, mail_id: UUID, quota: str, *, reserved_slots: int = 0
    ) -> timedelta | None:
        """Reserve a slot, or return the time until one is free; idempotent by `mail_id`."""
        if self.rate.limit is None:
            return None
        now, slots = self.clock.now(), max(self.rate.limit - reserved_slots, 1)
        retry_at = await repositories.mail_quota.reserve_slot(
            mail_id, quota, now, slots=slots, window=self.rate.window
        )
        return None if retry_at is None else retry_at - now


@dataclass(frozen=True, slots=True)
class ReserveSlotInBatch:
    """Count a mail to a user and store its token, in a batch with other mails."""

    clock: Clock
    mail_reservations: MailReservations
    rate: MailRate

    async def __call__(
        self,
        context: JobContext,
        user_id: UUID,
        token: OneTimeToken | None = None,
        *,
        counts: bool = True,
    ) -> User | None:
        """Return the recipient, or None if the mail must not be sent; raises `RescheduleJob`.

        `RESERVED_MAIL_SLOTS` stay free. With `counts` false the mail is not counted.
        """
        now, slots = self.clock.now(), None
        if counts and self.rate.limit is not None:
            slots = max(self.rate.limit - RESERVED_MAIL_SLOTS, 1)
        reservation = await self.mail_reservations.reserve(
            MailReservationRequest(context.id, user_id, now, slots, self.rate.window, token)
        )
        if reservation is None or reservation.user.blocked_at is not None:
            return None
        if reservation.retry_at is not None:
            raise RescheduleJob(reservation.retry_at - now)
        return reservation.user


def password_reset_quota(email_key: str) -> str:
    """Return the name of the quota of password reset mails to an address.

    These mails have a quota of their own, because anyone can request them for any address: they
    must neither block other mails to the address nor reveal whether there were any.
    """
    return f"reset {email_key}"
