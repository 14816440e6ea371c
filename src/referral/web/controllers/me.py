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
from referral.core.use_cases.accounts import AccountChange, ShowAccount, UpdateAccount
from referral.core.use_cases.erasure import EraseAccount, ExportAccount
from referral.core.use_cases.passwords import ChangePassword
from referral.core.use_cases.referrals import ClaimReferrer
from referral.web.auth import SECURITY, identify_session, identify_user
from referral.web.controllers.accounts import FullUser
from referral.web.controllers.codes import BODY, CHANGE, COMMON_ERRORS
from referral.web.controllers.exports import Export
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.parsing import check_session, check_user
from referral.web.problems import problems
from referral.web.rate_limits import COSTLY_OF_ACCOUNT, LOOKUPS_OF_ACCOUNT


class Change(Struct, forbid_unknown_fields=True):
    """What is to change; what is left out stays."""

    locale: Annotated[Locale, Meta(description="The language of mails.")] | UnsetType = UNSET
    notify_on_referral: (
        Annotated[bool, Meta(description="Whether a mail tells of each new referral.")] | UnsetType
    ) = UNSET


class NewPassword(Struct, forbid_unknown_fields=True):
    """The password to be, and the one that is."""

    current_password: Annotated[str, Meta(examples=["correct horse battery"])]
    new_password: Annotated[
        str,
        Meta(
            description="8 characters to 1,024 bytes; common ones are refused.",
            examples=["staple battery horse"],
        ),
    ]


class Farewell(Struct, forbid_unknown_fields=True):
    """That one really wants to leave."""

    password: Annotated[str, Meta(examples=["correct horse battery"])]


class Claim(Struct, forbid_unknown_fields=True):
    """Whose referral one is."""

    referral_code: Annotated[str, Meta(examples=["ANN-2026"])]


class Me(Controller):
    """One's own account."""

    path = "/api/v1/me"
    tags = ("Accounts",)
    security = SECURITY
    before_request = staticmethod(check_user)
    dependencies = {"user_id": Provide(identify_user)}

    @get(summary="Show my account", responses=problems(*COMMON_ERRORS))
    @inject
    async def show(
        self, user_id: NamedDependency[UUID], use: FromDishka[ShowAccount], links: FromDishka[Links]
    ) -> FullUser:
        """Show the account of whoever is signed in, with its newest referrals."""
        return FullUser.in_full(await use(user_id), links)

    @patch(summary="Change my account", responses=problems(*CHANGE, *BODY))
    @inject
    async def change(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[Change],
        use: FromDishka[UpdateAccount],
        show: FromDishka[ShowAccount],
        links: FromDishka[Links],
    ) -> FullUser:
        """Choose the language of mails, and whether new referrals are told."""
        locale = None if data.locale is UNSET else data.locale
        notify = None if data.notify_on_referral is UNSET else data.notify_on_referral
        await use(user_id, AccountChange(locale, notify))
        return FullUser.in_full(await show(user_id), links)

    @delete(
        summary="Erase my account",
        guards=COSTLY_OF_ACCOUNT,
        responses=problems(*CHANGE, *BODY, errors.TooManyRequests, errors.WrongPassword),
    )
    @inject
    async def erase(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[Farewell],
        use: FromDishka[EraseAccount],
    ) -> None:
        """Erase the account for good: the address, the password, all sessions and codes. The
        counts of those who referred stay.
        """
        await use(user_id, data.password)

    @put(
        "/password",
        summary="Change my password",
        status_code=204,
        guards=COSTLY_OF_ACCOUNT,
        dependencies={"session_id": Provide(identify_session)},
        responses=problems(
            *CHANGE, *BODY, errors.TooManyRequests, errors.WrongPassword, errors.WeakPassword
        ),
    )
    @inject
    async def change_password(
        self,
        user_id: NamedDependency[UUID],
        session_id: NamedDependency[UUID | None],
        data: JSONBody[NewPassword],
        use: FromDishka[ChangePassword],
    ) -> None:
        """Change the password, and end every session but this one."""
        await use(user_id, session_id, data.current_password, data.new_password)

    @get(
        "/export",
        summary="Export my data",
        before_request=check_session,
        responses=problems(*COMMON_ERRORS),
    )
    @inject
    async def export(
        self, user_id: NamedDependency[UUID], use: FromDishka[ExportAccount]
    ) -> Export:
        """Show all that is stored about the account, but the hashes of password and tokens."""
        return Export.of(await use(user_id))

    @post(
        "/referrer",
        summary="Name my referrer",
        status_code=200,
        guards=LOOKUPS_OF_ACCOUNT,
        responses=problems(
            *CHANGE, *BODY,
            errors.AlreadyReferred, errors.ClaimWindowClosed, errors.ReferralCodeUnusable,
            errors.TooManyRequests,
        ),
    )  # fmt: skip
    @inject
    async def claim(
        self,
        user_id: NamedDependency[UUID],
        data: JSONBody[Claim],
        use: FromDishka[ClaimReferrer],
        show: FromDishka[ShowAccount],
        links: FromDishka[Links],
    ) -> FullUser:
        """Enter a referral code after joining: within 7 days, and once."""
        await use(user_id, data.referral_code)
        return FullUser.in_full(await show(user_id), links)
