"""What one does with one's own account."""

from typing import Annotated
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, delete, get, patch, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.entities.users import Locale
from referral.core.use_cases.accounts import AccountUpdate, ShowAccount, UpdateAccount
from referral.core.use_cases.erasure import EraseAccount
from referral.core.use_cases.exports import ExportAccount
from referral.core.use_cases.passwords import ChangePassword
from referral.core.use_cases.referrals import SetReferrer
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user, find_session_id
from referral.web.controllers.accounts import CurrentUserResponse
from referral.web.controllers.codes import BODY_ERRORS, READ_ERRORS, WRITE_ERRORS
from referral.web.controllers.exports import AccountExportResponse
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.parsing import require_active_session, require_user
from referral.web.problems import problem_responses
from referral.web.rate_limits import LOOKUP_LIMITS_BY_ACCOUNT, TOKEN_LIMITS_BY_ACCOUNT


class UpdateMeRequest(Struct, forbid_unknown_fields=True):
    """What is to change; what is left out stays."""

    locale: Annotated[Locale, Meta(description="The language of mails.")] | UnsetType = UNSET
    notify_on_referral: (
        Annotated[bool, Meta(description="Whether a mail tells of each new referral.")] | UnsetType
    ) = UNSET


class ChangePasswordRequest(Struct, forbid_unknown_fields=True):
    """The password to be, and the one that is."""

    current_password: Annotated[str, Meta(examples=["correct horse battery"])]
    new_password: Annotated[
        str,
        Meta(
            description="8 characters to 1,024 bytes; common ones are refused.",
            examples=["staple battery horse"],
        ),
    ]


class DeleteAccountRequest(Struct, forbid_unknown_fields=True):
    """That one really wants to leave."""

    password: Annotated[str, Meta(examples=["correct horse battery"])]


class SetReferrerRequest(Struct, forbid_unknown_fields=True):
    """Whose referral one is."""

    referral_code: Annotated[str, Meta(examples=["ANN-2026"])]


class CurrentUserController(Controller):
    """One's own account."""

    path = "/api/v1/me"
    tags = ("Accounts",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @get(summary="Show my account", responses=problem_responses(*READ_ERRORS))
    @inject
    async def show(
        self,
        user_id: NamedDependency[UUID],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Show the account of whoever is signed in, with its newest referrals."""
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)

    @patch(summary="Change my account", responses=problem_responses(*WRITE_ERRORS, *BODY_ERRORS))
    @inject
    async def update(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[UpdateMeRequest],
        update_account: FromDishka[UpdateAccount],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Choose the language of mails, and whether new referrals are told."""
        locale = None if data.locale is UNSET else data.locale
        notify = None if data.notify_on_referral is UNSET else data.notify_on_referral
        await update_account(user_id, AccountUpdate(locale, notify))
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)

    @delete(
        summary="Erase my account",
        guards=TOKEN_LIMITS_BY_ACCOUNT,
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
        """Erase the account for good: the address, the password, all sessions and codes. The
        counts of those who referred stay.
        """
        await erase_account(user_id, data.password)

    @put(
        "/password",
        summary="Change my password",
        status_code=204,
        guards=TOKEN_LIMITS_BY_ACCOUNT,
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
        """Change the password, and end every session but this one."""
        await change_password(user_id, session_id, data.current_password, data.new_password)

    @get(
        "/export",
        summary="Export my data",
        before_request=require_active_session,
        responses=problem_responses(*READ_ERRORS),
    )
    @inject
    async def export(
        self, user_id: NamedDependency[UUID], export_account: FromDishka[ExportAccount]
    ) -> AccountExportResponse:
        """Show all that is stored about the account, but the hashes of password and tokens."""
        return AccountExportResponse.from_export(await export_account(user_id))

    @post(
        "/referrer",
        summary="Name my referrer",
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
        user_id: NamedDependency[UUID],
        data: JSONBody[SetReferrerRequest],
        set_referrer: FromDishka[SetReferrer],
        show_account: FromDishka[ShowAccount],
        urls: FromDishka[PublicUrls],
    ) -> CurrentUserResponse:
        """Enter a referral code after joining: within 7 days, and once."""
        await set_referrer(user_id, data.referral_code)
        return CurrentUserResponse.from_account_view(await show_account(user_id), urls)
