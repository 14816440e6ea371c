"""All that is stored about a user, in one document."""

from uuid import UUID

from msgspec import Struct

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.use_cases import erasure
from referral.web.controllers.accounts import Profile
from referral.web.controllers.codes import Time


class StoredAccount(Struct):
    """The account itself."""

    id: UUID
    email: str
    email_key: str
    role: Role
    locale: Locale
    email_verified: bool
    notify_on_referral: bool
    created_at: Time
    blocked_at: Time | None
    confirm_by: Time | None
    deliverability: Deliverability


class StoredCode(Struct):
    """A referral code."""

    id: UUID
    code: str
    created_at: Time
    expires_at: Time
    max_uses: int | None
    uses: int
    enabled: bool


class StoredReferral(Struct):
    """Someone who joined with one of the codes; an erased one has no address."""

    id: UUID
    email: str | None
    status: ReferralStatus
    code: str
    joined_at: Time


class StoredReferrer(Struct):
    """How the user came to join."""

    referrer_id: UUID
    status: ReferralStatus
    code: str
    joined_at: Time


class StoredSession(Struct):
    """A login that goes on."""

    id: UUID
    client_id: str
    scope: str
    created_at: Time
    expires_at: Time


class Export(Struct):
    """All that is stored about a user, but what password and tokens are checked against."""

    exported_at: Time
    account: StoredAccount
    joined_by: StoredReferrer | None
    codes: list[StoredCode]
    referrals: list[StoredReferral]
    sessions: list[StoredSession]
    profile: Profile | None

    @classmethod
    def of(cls, export: erasure.Export) -> "Export":
        """Show what was put together."""
        user, by = export.user, export.joined_by
        return cls(
            exported_at=export.now,
            account=StoredAccount(
                **{name: getattr(user, name) for name in StoredAccount.__struct_fields__}
            ),
            joined_by=StoredReferrer(by.referrer_id, by.status, by.code, by.joined_at)
            if by
            else None,
            codes=[
                StoredCode(c.id, c.text, c.created_at, c.expires_at, c.max_uses, c.uses, c.enabled)
                for c in export.codes
            ],
            referrals=[
                StoredReferral(r.id, r.email, r.status, r.code, r.joined_at)
                for r in export.referrals
            ],
            sessions=[
                StoredSession(s.id, s.client_id, s.scope, s.created_at, s.expires_at)
                for s in export.sessions
            ],
            profile=Profile.of(export.profile),
        )
