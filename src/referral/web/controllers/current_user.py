"""The account of the authenticated user."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, delete, get, patch, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.entities.account_view import AccountView
from referral.core.entities.referrals import ReferralListItem, ReferralStatus
from referral.core.entities.users import Locale, Profile
from referral.core.use_cases.accounts import AccountUpdate, ShowAccount, UpdateAccount
from referral.core.use_cases.erasure import EraseAccount
from referral.core.use_cases.passwords import ChangePassword
from referral.core.use_cases.referrals import SetReferrer
from referral.web.auth import (
    SECURITY_REQUIREMENTS,
    authenticate,
    authenticate_user,
    find_session_id,
    forbid_acting_clients,
)
from referral.web.before_request import require_user
from referral.web.controllers.codes import CodeResponse
from referral.web.controllers.registration import UserResponse, user_fields
from referral.web.field_types import CurrentPassword, NewPassword, Timestamp
from referral.web.injection import inject
from referral.web.problem_types import BODY_ERRORS, READ_ERRORS, WRITE_ERRORS, problem_responses
from referral.web.public_urls import PublicUrls
from referral.web.rate_limits import (
    LOOKUP_LIMITS_BY_ACCOUNT,
    TOKEN_LIMITS_BY_ACCOUNT,
    client_ip_of,
)


class UpdateMeRequest(Struct, forbid_unknown_fields=True):
    """The settings to change; omitted fields keep their value."""

    locale: Annotated[Locale, Meta(description="The language of mails.")] | UnsetType = UNSET
    notify_on_referral: (
        Annotated[bool, Meta(description="Whether each new referral is notified by mail.")]
        | UnsetType
    ) = UNSET


class ChangePasswordRequest(Struct, forbid_unknown_fields=True):
    """The current and the new password."""

    current_password: CurrentPassword
    new_password: NewPassword


class DeleteAccountRequest(Struct, forbid_unknown_fields=True):
    """The password, to confirm the erasure."""

    password: CurrentPassword


class SetReferrerRequest(Struct, forbid_unknown_fields=True):
    """A referral code of the referrer."""

    referral_code: Annotated[str, Meta(examples=["EVE-2026"])]


class ReferrerResponse(Struct):
    """The owner of the referral code that the user registered with or entered later."""

    id: UUID
    email: Annotated[
        str | None, Meta(description="Null unless the service shows referrals to everyone.")
    ]


class RecentReferralResponse(Struct):
    """One of the user's newest referrals; `email` is null after the account was erased."""

    id: UUID
    email: str | None
    status: ReferralStatus
    joined_at: Timestamp


class ProfileResponse(Struct):
    """Public data about the owner of the e-mail address."""

    name: str | None
    title: str | None
    company: str | None
    domain: str | None
    country: str | None
    avatar_url: str | None

    @classmethod
    def from_profile(cls, profile: Profile | None) -> "ProfileResponse | None":
        """Encode a profile, if there is one."""
        return None if profile is None else cls(**asdict(profile))


class CurrentUserResponse(UserResponse):
    """The account of the authenticated user."""

    notify_on_referral: bool
    referrer: ReferrerResponse | None
    referral_count: int
    recent_referrals: list[RecentReferralResponse]
    active_code: CodeResponse | None
    profile: ProfileResponse | None

    @classmethod
    def from_account_view(cls, account: AccountView, urls: PublicUrls) -> "CurrentUserResponse":
        """Encode an account for its owner."""
        referrer, code = account.referrer, account.active_code
        return cls(
            **user_fields(account.user),
            notify_on_referral=account.user.notify_on_referral,
            referrer=ReferrerResponse(referrer.id, referrer.email) if referrer else None,
            referral_count=account.referral_count,
            recent_referrals=[_recent_referral(item) for item in account.recent_referrals],
            active_code=CodeResponse.from_code(code, account.as_of, urls) if code else None,
            profile=ProfileResponse.from_profile(account.profile),
        )


class CurrentUserController(Controller):
    """Routes for the authenticated user's account."""

    path = "/api/v1/me"
    tags = ("My account",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @get(operation_id="getMe", summary="Get my account", responses=problem_responses(*READ_ERRORS))
    @inject
    async def show(
        self,
        user_id: NamedDependency[UUID],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Return the authenticated user's account, with its newest referrals."""
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)

    @patch(
        operation_id="updateMe",
        summary="Update my account",
        responses=problem_responses(*WRITE_ERRORS, *BODY_ERRORS),
    )
    @inject
    async def update(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[UpdateMeRequest],
        update_account: FromDishka[UpdateAccount],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Set the language of mails, and whether new referrals are notified by mail."""
        locale = None if data.locale is UNSET else data.locale
        notify = None if data.notify_on_referral is UNSET else data.notify_on_referral
        await update_account(user_id, AccountUpdate(locale, notify))
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)

    @delete(
        operation_id="deleteMe",
        summary="Delete my account",
        guards=(forbid_acting_clients, *TOKEN_LIMITS_BY_ACCOUNT),
        responses=problem_responses(
            *WRITE_ERRORS, *BODY_ERRORS, errors.TooManyRequests, errors.WrongPassword
        ),
    )
    @inject
    async def erase(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[DeleteAccountRequest],
        erase_account: FromDishka[EraseAccount],
    ) -> None:
        """Erase the account permanently: e-mail address, password, all sessions and codes.
        Referral counts of referrers do not change.
        """
        await erase_account(user_id, data.password)

    @put(
        "/password",
        operation_id="changeMyPassword",
        summary="Change my password",
        status_code=204,
        guards=(forbid_acting_clients, *TOKEN_LIMITS_BY_ACCOUNT),
        dependencies={"session_id": Provide(find_session_id)},
        responses=problem_responses(
            *WRITE_ERRORS,
            *BODY_ERRORS,
            errors.TooManyRequests,
            errors.WrongPassword,
            errors.WeakPassword,
        ),
    )
    @inject
    async def change_password(
        self,
        user_id: NamedDependency[UUID],
        session_id: NamedDependency[UUID | None],
        data: JSONBody[ChangePasswordRequest],
        change_password: FromDishka[ChangePassword],
    ) -> None:
        """Change the password, and end every other session."""
        await change_password(user_id, session_id, data.current_password, data.new_password)

    @post(
        "/referrer",
        operation_id="setMyReferrer",
        summary="Set my referrer",
        status_code=200,
        guards=LOOKUP_LIMITS_BY_ACCOUNT,
        responses=problem_responses(
            *WRITE_ERRORS, *BODY_ERRORS,
            errors.AlreadyReferred, errors.ClaimWindowClosed, errors.ReferralCodeUnusable,
            errors.TooManyRequests,
        ),
    )  # fmt: skip
    @inject
    async def set_referrer(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        data: JSONBody[SetReferrerRequest],
        set_referrer: FromDishka[SetReferrer],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Set the referrer by a referral code: once, within 7 days of registration."""
        caller = await authenticate(request)
        # The requests of a client that acts for a user come from the client's network.
        client_ip = client_ip_of(request.scope) if caller.acting_client is None else None
        await set_referrer(user_id, data.referral_code, client_ip)
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)


def _recent_referral(item: ReferralListItem) -> RecentReferralResponse:
    return RecentReferralResponse(item.id, item.email, item.status, item.joined_at)
