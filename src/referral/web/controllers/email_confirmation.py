"""Confirmation of e-mail addresses."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import Meta, Struct

from referral.core import errors
from referral.core.use_cases.email_links import ConfirmEmail, DisownEmail, RequestConfirmationMail
from referral.web.auth import (
    SECURITY_REQUIREMENTS,
    authenticate_optional_user,
    authenticate_user,
)
from referral.web.field_types import CurrentPassword, LinkToken
from referral.web.idempotency import (
    MAIL_ACCEPTED,
    IdempotencyKey,
    replay_stored_user_response,
    respond_accepted,
)
from referral.web.injection import inject
from referral.web.problem_types import (
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    WRITE_ERRORS,
    problem_responses,
)
from referral.web.rate_limits import TOKEN_LIMITS, TOKEN_LIMITS_BY_ACCOUNT, client_ip_of


class ConfirmEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of the mail, and the account's password unless the request has an access token."""

    token: LinkToken
    password: Annotated[
        CurrentPassword | None,
        Meta(description="Required unless the request has an access token of the account."),
    ] = None


class DisownEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of a confirmation mail."""

    token: LinkToken


class EmailConfirmationController(Controller):
    """Routes for confirming or disowning an e-mail address."""

    path = "/api/v1/auth"
    tags = ("E-mail links",)

    @post(
        "/email/verification",
        operation_id="requestEmailVerification",
        summary="Request a confirmation mail",
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
    ) -> Response[None]:
        """Send a new confirmation link to the authenticated user's e-mail address."""
        return await respond_accepted(request_confirmation, user_id, request, idempotency_key)

    @post(
        "/email/confirm",
        operation_id="confirmEmail",
        summary="Confirm an e-mail address",
        status_code=204,
        security=[{}, *SECURITY_REQUIREMENTS],
        guards=TOKEN_LIMITS,
        dependencies={"caller_id": Provide(authenticate_optional_user)},
        responses=problem_responses(
            *BODY_ERRORS, errors.TokenUnusable, errors.TooManyRequests, errors.Unauthenticated,
            errors.Unavailable, errors.WrongPassword,
        ),
    )  # fmt: skip
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        caller_id: NamedDependency[UUID | None],
        data: JSONBody[ConfirmEmailRequest],
        confirm_email: FromDishka[ConfirmEmail],
    ) -> None:
        """Confirm an e-mail address with the token sent to it. A token is valid once, for 24 hours.

        Only the user who registered can confirm: send the password or an access token of the
        account. A wrong password does not consume the token.
        """
        client_ip = client_ip_of(request.scope)
        await confirm_email(
            data.token, caller_id=caller_id, password=data.password, client_ip=client_ip
        )

    @post(
        "/email/disown",
        operation_id="disownEmail",
        summary="Disown an e-mail address",
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
        """Erase the account of a confirmation mail, if the recipient did not create it.

        Only an account that was never confirmed can be disowned. The address can be registered
        again afterwards.
        """
        await disown_email(data.token)
