"""Who joined with whose code."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


SET_REFERRER_WINDOW = timedelta(days=7)
"""How long after joining one may still say who one's referrer is."""


REFERRAL_PENDING_PERIOD = timedelta(days=7)
"""How long a referral may be pending before it is rejected."""


REFERRAL_COOLDOWN = timedelta(days=365)
"""How long after somebody joined by a referral the same e-mail address is not referred again."""


class ReferralStatus(StrEnum):
    """How far a referral has come."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"


class ReferralVisibility(StrEnum):
    """What a stranger sees of someone's referrals."""

    OPEN = "open"
    REDACTED = "redacted"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Referral:
    """That `referred_id` joined with a code of `referrer_id`; `code` is its text at that time."""

    id: UUID
    referrer_id: UUID
    referred_id: UUID
    code_id: UUID
    code: str
    status: ReferralStatus
    joined_at: datetime

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether the referral was pending for too long to be confirmed at `now`."""
        return self.joined_at + REFERRAL_PENDING_PERIOD <= now


@dataclass(frozen=True, slots=True)
class ReferralListItem:
    """A referral as it is listed: `id` is the referred user's, `referral_id` its place.

    An erased user has no address.
    """

    referral_id: UUID
    id: UUID
    email: str | None
    status: ReferralStatus
    code: str
    joined_at: datetime
