"""The export of all data that is stored about the authenticated user."""

from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from msgspec import Meta, Struct

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.use_cases.exports import AccountExport, ExportAccount
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.before_request import require_active_session
from referral.web.controllers.current_user import ProfileResponse
from referral.web.field_types import Timestamp
from referral.web.injection import inject
from referral.web.problem_types import WRITE_ERRORS, problem_responses


class ExportedAccount(Struct):
    """The stored account."""

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
    external_id: str | None
    deliverability: Deliverability


class ExportedCode(Struct):
    """A stored referral code."""

    id: UUID
    code: str
    created_at: Timestamp
    expires_at: Timestamp
    max_uses: int | None
    uses: int
    enabled: bool


class ExportedReferral(Struct):
    """A user who registered with one of the codes; `email` is null after the account was erased."""

    id: UUID
    email: str | None
    status: ReferralStatus
    code: str | None
    joined_at: Timestamp


class ExportedReferrer(Struct):
    """The referrer of the user."""

    referrer_id: UUID
    status: ReferralStatus
    code: str | None
    joined_at: Timestamp


class ExportedSession(Struct):
    """An active session."""

    id: UUID
    client_id: str
    scope: str
    created_at: Timestamp
    expires_at: Timestamp


class ExportedLoginSession(Struct):
    """A browser that is logged in to the pages of the service."""

    created_at: Timestamp
    expires_at: Timestamp


class ExportedNetwork(Struct):
    """A network from which the user came in the last 30 days; its address is not stored."""

    seen_at: Annotated[Timestamp, Meta(description="The last registration or login from there.")]
    registered_at: Annotated[
        Timestamp | None, Meta(description="Null if the user registered from elsewhere.")
    ]


class AccountExportResponse(Struct):
    """All data that is stored about a user, except hashes: of the password, of tokens, and of
    networks.
    """

    exported_at: Timestamp
    account: ExportedAccount
    joined_by: ExportedReferrer | None
    codes: list[ExportedCode]
    referrals: list[ExportedReferral]
    sessions: list[ExportedSession]
    login_sessions: list[ExportedLoginSession]
    networks: list[ExportedNetwork]
    profile: ProfileResponse | None

    @classmethod
    def from_export(cls, export: AccountExport) -> "AccountExportResponse":
        """Encode an export."""
        user, referrer = export.user, export.referred_by
        return cls(
            exported_at=export.as_of,
            account=ExportedAccount(
                **{name: getattr(user, name) for name in ExportedAccount.__struct_fields__}
            ),
            joined_by=ExportedReferrer(
                referrer.referrer_id, referrer.status, referrer.code, referrer.joined_at
            )
            if referrer
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
            login_sessions=[
                ExportedLoginSession(s.created_at, s.expires_at) for s in export.login_sessions
            ],
            networks=[ExportedNetwork(n.seen_at, n.registered_at) for n in export.networks],
            profile=ProfileResponse.from_profile(export.profile),
        )


class AccountExportController(Controller):
    """Route for the export."""

    path = "/api/v1/me/export"
    tags = ("My account",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_active_session)
    dependencies = {"user_id": Provide(authenticate_user)}

    @get(
        operation_id="exportMe",
        summary="Export my data",
        responses=problem_responses(*WRITE_ERRORS),
    )
    @inject
    async def export(
        self, user_id: NamedDependency[UUID], export_account: FromDishka[ExportAccount]
    ) -> AccountExportResponse:
        """Return all data stored about the account, except hashes."""
        return AccountExportResponse.from_export(await export_account(user_id))
