"""Password reset by a link in a mail."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.params import JSONBody
from msgspec import Struct

from referral.core import errors
from referral.core.use_cases.email_links import RequestPasswordReset, ResetPassword
from referral.web.field_types import Email, LinkToken, NewPassword
from referral.web.idempotency import (
    MAIL_ACCEPTED,
    IdempotencyKey,
    replay_stored_response,
    respond_accepted,
)
from referral.web.injection import inject
from referral.web.problem_types import BODY_ERRORS, IDEMPOTENCY_ERRORS, problem_responses
from referral.web.rate_limits import TOKEN_LIMITS


class ForgotPasswordRequest(Struct, forbid_unknown_fields=True):
    """The e-mail address of the account."""

    email: Email


class ResetPasswordRequest(Struct, forbid_unknown_fields=True):
    """The token of the mail, and the new password."""

    token: LinkToken
    new_password: NewPassword


class PasswordResetController(Controller):
    """Routes for a forgotten password."""

    path = "/api/v1/auth/password"
    tags = ("E-mail links",)

    @post(
        "/forgot",
        operation_id="requestPasswordReset",
        summary="Request a password reset",
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
        request_password_reset: FromDishka[RequestPasswordReset],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[None]:
        """Send a reset link to the address. The response is the same if it has no account."""
        return await respond_accepted(request_password_reset, data.email, request, idempotency_key)

    @post(
        "/reset",
        operation_id="resetPassword",
        summary="Reset the password",
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
        """Set a password with the token of the mail, which is valid once, for an hour. All sessions
        end.
        """
        await reset_password(data.token, data.new_password)
