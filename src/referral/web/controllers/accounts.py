"""Registration and the account."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, post
from litestar.datastructures import ResponseHeader
from litestar.params import JSONBody
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.account_view import AccountView
from referral.core.entities.limits import LimitGroup
from referral.core.entities.referrals import ReferralListItem, ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.entities.users import Profile as StoredProfile
from referral.core.entities.users import User as Entity
from referral.core.use_cases.accounts import NewAccount, Register
from referral.web.controllers.codes import REPEATED, Code, Time
from referral.web.idempotency import IdempotencyKey, StoredResponse, attempt_of, make_answer, recall
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.problems import problems
from referral.web.rate_limits import COSTLY, by_address

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


class User(Struct):
    """An account."""

    id: UUID
    email: str
    email_verified: bool
    role: Role
    locale: Locale
    created_at: Time

    @classmethod
    def of(cls, user: Entity) -> "User":
        """Show an account."""
        return cls(**_common(user))


class Referrer(Struct):
    """Whose code the user joined with."""

    id: UUID
    email: Annotated[
        str | None, Meta(description="Null unless the service shows everyone's referrals.")
    ]


class RecentReferral(Struct):
    """One of the newest who joined with the user's codes; an erased one has no address."""

    id: UUID
    email: str | None
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

    @classmethod
    def of(cls, profile: StoredProfile | None) -> "Profile | None":
        """Show what is known, if anything."""
        return None if profile is None else cls(**asdict(profile))


class FullUser(User):
    """An account, as its owner sees it."""

    notify_on_referral: bool
    referrer: Referrer | None
    referral_count: int
    recent_referrals: list[RecentReferral]
    active_code: Code | None
    profile: Profile | None

    @classmethod
    def in_full(cls, account: AccountView, links: Links) -> "FullUser":
        """Show an account to its owner."""
        referrer, code = account.referrer, account.active_code
        return cls(
            **_common(account.user),
            notify_on_referral=account.user.notify_on_referral,
            referrer=Referrer(referrer.id, referrer.email) if referrer else None,
            referral_count=account.referral_count,
            recent_referrals=[_recent(joined) for joined in account.recent_referrals],
            active_code=Code.of(code, account.now, links) if code else None,
            profile=Profile.of(account.profile),
        )


class Accounts(Controller):
    """Joining, and one's own account."""

    path = "/api/v1"
    tags = ("Accounts",)

    @post(
        "/auth/register",
        summary="Register",
        guards=[by_address(LimitGroup.REGISTER), *COSTLY],
        before_request=recall,
        response_headers=[ResponseHeader("Location", value="/api/v1/me")],
        responses=problems(
            400, 408, 413, 415, errors.EmailTaken, errors.EmailUndeliverable,
            errors.InvalidRequest,
            errors.ReferralCodeUnusable, errors.TooManyRequests, errors.WeakPassword,
            errors.Unavailable, *REPEATED,
        ),
    )  # fmt: skip
    @inject
    async def register(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[NewUser],
        use: FromDishka[Register],
        idempotency_key: IdempotencyKey = None,
    ) -> User:
        """Make an account. With a referral code, its owner is credited in the same breath."""
        attempt = attempt_of(request, idempotency_key, _registered)
        wanted = NewAccount(data.email, data.password, data.referral_code, data.locale)
        return User.of(await use(wanted, attempt))


def _registered(user: Entity) -> StoredResponse:
    return make_answer(201, User.of(user), "/api/v1/me")


def _common(user: Entity) -> dict[str, Any]:
    return {name: getattr(user, name) for name in User.__struct_fields__}


def _recent(joined: ReferralListItem) -> RecentReferral:
    return RecentReferral(joined.id, joined.email, joined.status, joined.joined_at)
