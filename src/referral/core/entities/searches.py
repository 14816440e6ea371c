"""Filters of the lists for admins and clients; None means all."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import CodeStatus
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import RiskSignal


@dataclass(frozen=True, slots=True)
class CodeFilter:
    """Which codes a list contains; `code` is a text in any case."""

    code: str | None = None
    user_id: UUID | None = None
    status: CodeStatus | None = None


@dataclass(frozen=True, slots=True)
class ReferralFilter:
    """Which referrals a list contains: since <= joined_at < until."""

    status: ReferralStatus | None = None
    referrer_id: UUID | None = None
    code: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    held: bool | None = None


@dataclass(frozen=True, slots=True)
class ReferralRecord:
    """A referral as admins and clients see it: `id` is the referred user's id.

    `email` is None for an erased user. `reason` is that of an admin's decision.
    """

    referral_id: UUID
    referrer_id: UUID
    id: UUID
    email: str | None
    status: ReferralStatus
    code: str | None
    joined_at: datetime
    held: bool
    reason: str | None
    risk_signals: tuple[RiskSignal, ...] = ()
