"""An account as its owner sees it."""

from dataclasses import dataclass
from datetime import datetime

from referral.core.entities.codes import Code
from referral.core.entities.referrals import ReferralListItem
from referral.core.entities.users import Profile, Referrer, User


@dataclass(frozen=True, slots=True)
class AccountView:
    """A user with everything that `GET /me` shows; code statuses are those at `as_of`."""

    user: User
    referrer: Referrer | None
    referral_count: int
    recent_referrals: list[ReferralListItem]
    active_code: Code | None
    as_of: datetime
    profile: Profile | None = None
