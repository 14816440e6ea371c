"""Confirming or disowning an e-mail address, and setting a forgotten password anew."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.use_cases.email_links import (
    ConfirmEmail,
    DisownEmail,
    RequestConfirmationMail,
    RequestPasswordReset,
    ResetPassword,
)
from referral.web.accepted import MAIL_ACCEPTED, respond_accepted
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_optional_user, authenticate_user
from referral.web.controllers.accounts import Email
from referral.web.controllers.codes import BODY_ERRORS, IDEMPOTENCY_ERRORS, WRITE_ERRORS
from referral.web.idempotency import (
    IdempotencyKey,
    replay_stored_response,
    replay_stored_user_response,
)
from referral.web.injection import inject
from referral.web.problems import problem_responses
from referral.web.rate_limits import TOKEN_LIMITS, TOKEN_LIMITS_BY_ACCOUNT, client_ip_of

LinkToken = Annotated[
    str,
    Meta(
        max_length=255,
        description="The `token` of the link in the mail.",
        examples=["Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"],
    ),
]


class ConfirmEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of the mail, and the password of the account unless a bearer token is sent."""

    token: LinkToken
    password: Annotated[
        str | None,
        Meta(
            description="Needed unless the request carries a bearer token of the account.",
            examples=["correct horse battery"],
        ),
    ] = None


class DisownEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of a confirmation mail."""

    token: LinkToken


class ForgotPasswordRequest(Struct, forbid_unknown_fields=True):
    """Whose password was forgotten."""

    email: Email


class ResetPasswordRequest(Struct, forbid_unknown_fields=True):
    """What was in the mail, and the password to be."""

    token: LinkToken
    new_password: Annotated[
        str,
        Meta(
            description="8 characters to 1,024 bytes; common ones are refused.",
            examples=["staple battery horse"],
        ),
    ]


class EmailConfirmationController(Controller):
    """What links in mails are for."""

    path = "/api/v1/auth"
    tags = ("Accounts",)

    @post(
        "/email/verification",
        summary="Mail me a link to confirm my address",
        status_code=202,
        security=SECURITY_REQUIREMENTS,
        guards=TOKEN_LIMITS_BY_ACCOUNT,
        before_request=replay_stored_user_response,
        dependencies={"user_id": Provide(authenticate_user)},
        responses=problem_responses(
            *WRITE_ERRORS, *IDEMPOTENCY_ERRORS, errors.InvalidRequest,
            errors.EmailAlreadyVerified, errors.TooManyRequests,
        )
        | MAIL_ACCEPTED,
    )  # fmt: skip
    @inject
    async def request_confirmation(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        request_confirmation: FromDishka[RequestConfirmationMail],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail a fresh link that confirms the address of whoever is signed in."""
        return await respond_accepted(request_confirmation, user_id, request, idempotency_key)

    @post(
        "/email/confirm",
        summary="Confirm an address",
        status_code=204,
        security=[{}, *SECURITY_REQUIREMENTS],
        guards=TOKEN_LIMITS,
        dependencies={"caller": Provide(authenticate_optional_user)},
        responses=problem_responses(
            *BODY_ERRORS, errors.TokenUnusable, errors.TooManyRequests, errors.Unauthenticated,
            errors.Unavailable, errors.WrongPassword,
        ),
    )  # fmt: skip
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        caller: NamedDependency[UUID | None],
        data: JSONBody[ConfirmEmailRequest],
        confirm_email: FromDishka[ConfirmEmail],
    ) -> None:
        """Confirm an address with the token that was mailed to it; each works once, for a day.

        Whoever confirms has to be who registered: send the password of the account, or a bearer
        token of it. A wrong password does not use the token up.
        """
        client_ip = client_ip_of(request.scope)
        await confirm_email(
            data.token, caller_id=caller, password=data.password, client_ip=client_ip
        )

    @post(
        "/email/disown",
        summary="Disown an address",
        status_code=204,
        guards=TOKEN_LIMITS,
        responses=problem_responses(
            *BODY_ERRORS, errors.TokenUnusable, errors.TooManyRequests, errors.Unavailable
        ),
    )
    @inject
    async def disown(
        self, data: JSONBody[DisownEmailRequest], disown_email: FromDishka[DisownEmail]
    ) -> None:
        """Erase the account of a confirmation mail, for whoever got the mail and made no account.

        Only an account that was never confirmed can be disowned. The address is free afterwards.
        """
        await disown_email(data.token)

    @post(
        "/password/forgot",
        summary="Mail a link for a new password",
        status_code=202,
        guards=TOKEN_LIMITS,
        before_request=replay_stored_response,
        responses=problem_responses(
            *BODY_ERRORS, *IDEMPOTENCY_ERRORS, errors.TooManyRequests, errors.Unavailable
        )
        | MAIL_ACCEPTED,
    )
    @inject
    async def forgot(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[ForgotPasswordRequest],
        forgot_password: FromDishka[RequestPasswordReset],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail a link to whoever has the address. The answer is the same when nobody has."""
        return await respond_accepted(forgot_password, data.email, request, idempotency_key)

    @post(
        "/password/reset",
        summary="Set a new password",
        status_code=204,
        guards=TOKEN_LIMITS,
        responses=problem_responses(
            *BODY_ERRORS, errors.TokenUnusable, errors.TooManyRequests, errors.WeakPassword,
            errors.Unavailable,
        ),
    )  # fmt: skip
    @inject
    async def reset(
        self, data: JSONBody[ResetPasswordRequest], reset_password: FromDishka[ResetPassword]
    ) -> None:
        """Set a password with the token that was mailed; it works once, for an hour. Every
        session ends.
        """
        await reset_password(data.token, data.new_password)
