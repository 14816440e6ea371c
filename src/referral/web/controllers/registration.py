"""Registration of users."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, post
from litestar.datastructures import ResponseHeader
from litestar.params import JSONBody
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.users import Locale, Role, User
from referral.core.use_cases.accounts import NewAccount, Register
from referral.web.field_types import Email, NewPassword, Timestamp
from referral.web.idempotency import (
    IdempotencyKey,
    StoredJsonResponse,
    idempotent_request,
    make_stored_response,
    replay_stored_response,
)
from referral.web.injection import inject
from referral.web.problem_types import IDEMPOTENCY_ERRORS, problem_responses
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of, limit_by_ip

LOCATION = "/api/v1/me"


class RegisterRequest(Struct, forbid_unknown_fields=True):
    """The e-mail address and password of a new user."""

    email: Email
    password: NewPassword
    referral_code: Annotated[
        str | None, Meta(description="A code of the referrer.", examples=["EVE-2026"])
    ] = None
    locale: Annotated[Locale, Meta(description="The language of mails; `en` by default.")] = (
        Locale.EN
    )


class UserResponse(Struct):
    """A user account."""

    id: UUID
    email: str
    email_verified: bool
    role: Role
    locale: Locale
    created_at: Timestamp

    @classmethod
    def from_user(cls, user: User) -> "UserResponse":
        """Encode a user."""
        return cls(**user_fields(user))


class RegistrationController(Controller):
    """Routes for registration."""

    path = "/api/v1"
    tags = ("Accounts",)

    @post(
        "/auth/register",
        operation_id="registerUser",
        summary="Register a user",
        guards=[limit_by_ip(RateLimitGroup.REGISTER), *TOKEN_LIMITS],
        before_request=replay_stored_response,
        response_headers=[ResponseHeader("Location", value=LOCATION)],
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
        """Create a user account. The owner of the referral code, if any, becomes the referrer."""
        idempotent = idempotent_request(request, idempotency_key, _stored_response)
        new_account = NewAccount(
            data.email,
            data.password,
            data.referral_code,
            data.locale,
            client_ip=client_ip_of(request.scope),
        )
        return UserResponse.from_user(await register(new_account, idempotent))


def user_fields(user: User) -> dict[str, Any]:
    """Return the fields of a user that every `UserResponse` has."""
    return {name: getattr(user, name) for name in UserResponse.__struct_fields__}


def _stored_response(user: User) -> StoredJsonResponse:
    return make_stored_response(201, UserResponse.from_user(user), LOCATION)
