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
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.referrals import ReferralListItem, ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.entities.users import Profile as StoredProfile
from referral.core.entities.users import User as Entity
from referral.core.use_cases.accounts import NewAccount, Register
from referral.web.controllers.codes import IDEMPOTENCY_ERRORS, CodeResponse, Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    idempotent_request,
    make_stored_response,
    replay_stored_response,
)
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.problems import problem_responses
from referral.web.rate_limits import TOKEN_LIMITS, limit_by_ip

Email = Annotated[
    str,
    Meta(max_length=254, examples=["ann@example.com"], extra_json_schema={"format": "email"}),
]


class RegisterRequest(Struct, forbid_unknown_fields=True):
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


class UserResponse(Struct):
    """An account."""

    id: UUID
    email: str
    email_verified: bool
    role: Role
    locale: Locale
    created_at: Timestamp

    @classmethod
    def from_user(cls, user: Entity) -> "UserResponse":
        """Show an account."""
        return cls(**_user_fields(user))


class ReferrerResponse(Struct):
    """Whose code the user joined with."""

    id: UUID
    email: Annotated[
        str | None, Meta(description="Null unless the service shows everyone's referrals.")
    ]


class RecentReferralResponse(Struct):
    """One of the newest who joined with the user's codes; an erased one has no address."""

    id: UUID
    email: str | None
    status: ReferralStatus
    joined_at: Timestamp


class ProfileResponse(Struct):
    """What is publicly known about the owner of the address."""

    name: str | None = None
    title: str | None = None
    company: str | None = None
    domain: str | None = None
    country: str | None = None
    avatar_url: str | None = None

    @classmethod
    def from_profile(cls, profile: StoredProfile | None) -> "ProfileResponse | None":
        """Show what is known, if anything."""
        return None if profile is None else cls(**asdict(profile))


class CurrentUserResponse(UserResponse):
    """An account, as its owner sees it."""

    notify_on_referral: bool
    referrer: ReferrerResponse | None
    referral_count: int
    recent_referrals: list[RecentReferralResponse]
    active_code: CodeResponse | None
    profile: ProfileResponse | None

    @classmethod
    def from_account_view(cls, account: AccountView, links: PublicUrls) -> "CurrentUserResponse":
        """Show an account to its owner."""
        referrer, code = account.referrer, account.active_code
        return cls(
            **_user_fields(account.user),
            notify_on_referral=account.user.notify_on_referral,
            referrer=ReferrerResponse(referrer.id, referrer.email) if referrer else None,
            referral_count=account.referral_count,
            recent_referrals=[_recent_referral(joined) for joined in account.recent_referrals],
            active_code=CodeResponse.from_code(code, account.as_of, links) if code else None,
            profile=ProfileResponse.from_profile(account.profile),
        )


class RegistrationController(Controller):
    """Joining, and one's own account."""

    path = "/api/v1"
    tags = ("Accounts",)

    @post(
        "/auth/register",
        summary="Register",
        guards=[limit_by_ip(RateLimitGroup.REGISTER), *TOKEN_LIMITS],
        before_request=replay_stored_response,
        response_headers=[ResponseHeader("Location", value="/api/v1/me")],
        responses=problem_responses(
            400, 408, 413, 415, errors.EmailTaken, errors.EmailUndeliverable,
            errors.InvalidRequest,
            errors.ReferralCodeUnusable, errors.TooManyRequests, errors.WeakPassword,
            errors.Unavailable, *IDEMPOTENCY_ERRORS,
        ),
    )  # fmt: skip
    @inject
    async def register(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[RegisterRequest],
        register: FromDishka[Register],
        idempotency_key: IdempotencyKey = None,
    ) -> UserResponse:
        """Make an account. With a referral code, its owner is credited in the same breath."""
        idempotent = idempotent_request(request, idempotency_key, _registration_response)
        new_account = NewAccount(data.email, data.password, data.referral_code, data.locale)
        return UserResponse.from_user(await register(new_account, idempotent))


def _registration_response(user: Entity) -> StoredJsonResponse:
    return make_stored_response(201, UserResponse.from_user(user), "/api/v1/me")


def _user_fields(user: Entity) -> dict[str, Any]:
    return {name: getattr(user, name) for name in UserResponse.__struct_fields__}


def _recent_referral(joined: ReferralListItem) -> RecentReferralResponse:
    return RecentReferralResponse(joined.id, joined.email, joined.status, joined.joined_at)
