"""Registration and the account."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.accounts import (
    Account,
    AccountChange,
    NewAccount,
    Register,
    ShowAccount,
    UpdateAccount,
)
from referral.core.model import Joined, Locale, ReferralStatus, Role
from referral.core.model import User as Entity
from referral.web.auth import SECURITY, identify_user
from referral.web.codes import Code, Time
from referral.web.links import Links
from referral.web.problems import problems
from referral.web.wiring import inject

Email = Annotated[
    str,
    Meta(max_length=254, examples=["ann@example.com"], extra_json_schema={"format": "email"}),
]


class NewUser(Struct, forbid_unknown_fields=True):
    """What someone registers with."""

    email: Email
    password: Annotated[
        str,
        Meta(
            description="8 characters to 1,024 bytes; common ones are refused.",
            examples=["correct horse battery"],
        ),
    ]
    referral_code: Annotated[str | None, Meta(examples=["ANN-2026"])] = None
    locale: Annotated[Locale, Meta(description="The language of mails.")] = Locale.EN


class Change(Struct, forbid_unknown_fields=True):
    """What is to change; what is left out stays."""

    locale: Annotated[Locale | UnsetType, Meta(description="The language of mails.")] = UNSET
    notify_on_referral: Annotated[
        bool | UnsetType, Meta(description="Whether a mail tells of each new referral.")
    ] = UNSET


class User(Struct):
    """An account."""

    id: UUID
    email: str
    email_verified: bool
    role: Role
    locale: Locale
    created_at: Time


class Referrer(Struct):
    """Whose code the user joined with."""

    id: UUID
    email: str


class RecentReferral(Struct):
    """One of the newest who joined with the user's codes."""

    id: UUID
    email: str
    status: ReferralStatus
    joined_at: Time


class Profile(Struct):
    """What is publicly known about the owner of the address."""

    name: str | None = None
    title: str | None = None
    company: str | None = None
    domain: str | None = None
    country: str | None = None
    avatar_url: str | None = None


class FullUser(User):
    """An account, as its owner sees it."""

    notify_on_referral: bool
    referrer: Referrer | None
    referral_count: int
    recent_referrals: list[RecentReferral]
    active_code: Code | None
    profile: Profile | None


class Accounts(Controller):
    """Joining, and one's own account."""

    path = "/api/v1"
    tags = ("Accounts",)

    @post(
        "/auth/register",
        summary="Register",
        response_headers=[ResponseHeader("Location", value="/api/v1/me")],
        responses=problems(
            400, 413, 415, errors.EmailTaken, errors.InvalidRequest,
            errors.ReferralCodeUnusable, errors.WeakPassword, errors.Unavailable,
        ),
    )  # fmt: skip
    @inject
    async def register(self, data: JSONBody[NewUser], use: FromDishka[Register]) -> User:
        """Make an account. With a referral code, its owner is credited in the same breath."""
        wanted = NewAccount(data.email, data.password, data.referral_code, data.locale)
        return User(**_common(await use(wanted)))

    @get(
        "/me",
        summary="Show my account",
        security=SECURITY,
        dependencies={"user_id": Provide(identify_user)},
        responses=problems(errors.Unauthenticated, errors.InsufficientScope, errors.Unavailable),
    )
    @inject
    async def show(
        self, user_id: NamedDependency[UUID], use: FromDishka[ShowAccount], links: FromDishka[Links]
    ) -> FullUser:
        """Show the account of whoever is signed in, with its newest referrals."""
        return _in_full(await use(user_id), links)

    @patch(
        "/me",
        summary="Change my account",
        security=SECURITY,
        dependencies={"user_id": Provide(identify_user)},
        responses=problems(
            400, 413, 415, errors.InvalidRequest,
            errors.Unauthenticated, errors.InsufficientScope, errors.Unavailable,
        ),
    )  # fmt: skip
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
        return _in_full(await show(user_id), links)


def _common(user: Entity) -> dict[str, Any]:
    return {name: getattr(user, name) for name in User.__struct_fields__}


def _in_full(account: Account, links: Links) -> FullUser:
    referrer, code = account.referrer, account.active_code
    return FullUser(
        **_common(account.user),
        notify_on_referral=account.user.notify_on_referral,
        referrer=Referrer(referrer.id, referrer.email) if referrer else None,
        referral_count=account.referral_count,
        recent_referrals=[_recent(joined) for joined in account.recent_referrals],
        active_code=Code.of(code, account.now, links) if code else None,
        profile=None,
    )


def _recent(joined: Joined) -> RecentReferral:
    return RecentReferral(joined.id, joined.email, joined.status, joined.joined_at)
