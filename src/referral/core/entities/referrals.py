"""Referrals."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from referral.core.entities.risk import RiskSignal

SET_REFERRER_WINDOW = timedelta(days=7)
"""How long after registration a user may set a referrer."""

REFERRAL_PENDING_PERIOD = timedelta(days=7)
"""How long a referral may be pending; it is rejected afterwards."""

REFERRAL_COOLDOWN = timedelta(days=365)
"""How long after a confirmed referral the same e-mail address cannot be referred again."""


class ReferralStatus(StrEnum):
    """The status of a referral."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class ReferralVisibility(StrEnum):
    """What other users see of a user's referrals: everything, no personal data, or nothing."""

    OPEN = "open"
    REDACTED = "redacted"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Referral:
    """A user's registration with another user's code; `code` is the code's text at that time.

    `code_id` and `code` are None in an imported referral whose code is unknown, and in one that an
    admin entered. `expires` tells whether the referral is rejected if it stays pending for too
    long; a `held` one stays pending until an admin decides. `reason` is an admin's, `decided_at`
    the time of an admin's decision. Of the risk and the hold, users learn nothing.
    """

    id: UUID
    referrer_id: UUID
    referred_id: UUID
    code_id: UUID | None
    code: str | None
    status: ReferralStatus
    joined_at: datetime
    expires: bool = True
    held: bool = False
    reason: str | None = None
    decided_at: datetime | None = None
    risk_signals: tuple[RiskSignal, ...] = ()

    def is_overdue(self, now: datetime) -> bool:
        """Return whether the referral has been pending too long to be confirmed at `now`."""
        return self.expires and not self.held and self.joined_at + REFERRAL_PENDING_PERIOD <= now


@dataclass(frozen=True, slots=True)
class ReferralListItem:
    """A referral in a list: `id` is the referred user's id, `referral_id` the pagination key.

    `email` is None for an erased user.
    """

    referral_id: UUID
    id: UUID
    email: str | None
    status: ReferralStatus
    code: str | None
    joined_at: datetime
