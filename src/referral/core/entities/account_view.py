"""An account as its owner sees it, and as admins and clients see it."""

from dataclasses import dataclass
from datetime import datetime

from referral.core.entities.codes import Code
from referral.core.entities.referrals import ReferralListItem
from referral.core.entities.users import Profile, Referrer, Role, User

MAX_RECENT_REFERRALS = 10


@dataclass(frozen=True, slots=True)
class AccountView:
    """A user with everything that `GET /me` shows; code statuses are those at `as_of`.

    `enabled_code` is the code that the user did not deactivate, active or spent.
    """

    user: User
    referrer: Referrer | None
    referral_count: int
    recent_referrals: list[ReferralListItem]
    active_code: Code | None
    as_of: datetime
    profile: Profile | None = None
    enabled_code: Code | None = None


@dataclass(frozen=True, slots=True)
class UserDetails:
    """A user as admins and clients see it."""

    user: User
    referrer: Referrer | None
    referral_count: int


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users a list contains; None means any. `email_key` is the canonical address."""

    email_key: str | None = None
    role: Role | None = None
    blocked: bool | None = None
    verified: bool | None = None
