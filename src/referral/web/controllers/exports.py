"""All that is stored about a user, in one document."""

from uuid import UUID

from msgspec import Struct

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.use_cases.exports import AccountExport
from referral.web.controllers.accounts import ProfileResponse
from referral.web.controllers.codes import Timestamp


class ExportedAccount(Struct):
    """The account itself."""

    id: UUID
    email: str
    email_key: str
    role: Role
    locale: Locale
    email_verified: bool
    notify_on_referral: bool
    created_at: Timestamp
    blocked_at: Timestamp | None
    confirm_by: Timestamp | None
    deliverability: Deliverability


class ExportedCode(Struct):
    """A referral code."""

    id: UUID
    code: str
    created_at: Timestamp
    expires_at: Timestamp
    max_uses: int | None
    uses: int
    enabled: bool


class ExportedReferral(Struct):
    """Someone who joined with one of the codes; an erased one has no address."""

    id: UUID
    email: str | None
    status: ReferralStatus
    code: str
    joined_at: Timestamp


class ExportedReferrer(Struct):
    """How the user came to join."""

    referrer_id: UUID
    status: ReferralStatus
    code: str
    joined_at: Timestamp


class ExportedSession(Struct):
    """A login that goes on."""

    id: UUID
    client_id: str
    scope: str
    created_at: Timestamp
    expires_at: Timestamp


class AccountExportResponse(Struct):
    """All that is stored about a user, but what password and tokens are checked against."""

    exported_at: Timestamp
    account: ExportedAccount
    joined_by: ExportedReferrer | None
    codes: list[ExportedCode]
    referrals: list[ExportedReferral]
    sessions: list[ExportedSession]
    profile: ProfileResponse | None

    @classmethod
    def from_export(cls, export: AccountExport) -> "AccountExportResponse":
        """Show what was put together."""
        user, by = export.user, export.referred_by
        return cls(
            exported_at=export.as_of,
            account=ExportedAccount(
                **{name: getattr(user, name) for name in ExportedAccount.__struct_fields__}
            ),
            joined_by=ExportedReferrer(by.referrer_id, by.status, by.code, by.joined_at)
            if by
            else None,
            codes=[
                ExportedCode(
                    c.id, c.text, c.created_at, c.expires_at, c.max_uses, c.uses, c.enabled
                )
                for c in export.codes
            ],
            referrals=[
                ExportedReferral(r.id, r.email, r.status, r.code, r.joined_at)
                for r in export.referrals
            ],
            sessions=[
                ExportedSession(s.id, s.client_id, s.scope, s.created_at, s.expires_at)
                for s in export.sessions
            ],
            profile=ProfileResponse.from_profile(export.profile),
        )
