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
    AskForConfirmation,
    ConfirmEmail,
    DisownEmail,
    ForgotPassword,
    ResetPassword,
)
from referral.web.accepted import ON_ITS_WAY, queue_mail
from referral.web.auth import SECURITY, identify_user, identify_user_if_any
from referral.web.controllers.accounts import Email
from referral.web.controllers.codes import BODY, CHANGE, REPEATED
from referral.web.idempotency import IdempotencyKey, recall, recall_user
from referral.web.injection import inject
from referral.web.problems import problems
from referral.web.rate_limits import COSTLY, COSTLY_OF_ACCOUNT, client_address

Token = Annotated[
    str,
    Meta(
        max_length=255,
        description="The `token` of the link in the mail.",
        examples=["Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"],
    ),
]


class ConfirmEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of the mail, and the password of the account unless a bearer token is sent."""

    token: Token
    password: Annotated[
        str | None,
        Meta(
            description="Needed unless the request carries a bearer token of the account.",
            examples=["correct horse battery"],
        ),
    ] = None


class DisownEmailRequest(Struct, forbid_unknown_fields=True):
    """The token of a confirmation mail."""

    token: Token


class Forgotten(Struct, forbid_unknown_fields=True):
    """Whose password was forgotten."""

    email: Email


class Reset(Struct, forbid_unknown_fields=True):
    """What was in the mail, and the password to be."""

    token: Token
    new_password: Annotated[
        str,
        Meta(
            description="8 characters to 1,024 bytes; common ones are refused.",
            examples=["staple battery horse"],
        ),
    ]


class Proofs(Controller):
    """What links in mails are for."""

    path = "/api/v1/auth"
    tags = ("Accounts",)

    @post(
        "/email/verification",
        summary="Mail me a link to confirm my address",
        status_code=202,
        security=SECURITY,
        guards=COSTLY_OF_ACCOUNT,
        before_request=recall_user,
        dependencies={"user_id": Provide(identify_user)},
        responses=problems(
            *CHANGE, *REPEATED, errors.InvalidRequest,
            errors.EmailAlreadyVerified, errors.TooManyRequests,
        )
        | ON_ITS_WAY,
    )  # fmt: skip
    @inject
    async def ask(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        use: FromDishka[AskForConfirmation],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail a fresh link that confirms the address of whoever is signed in."""
        return await queue_mail(use, user_id, request, idempotency_key)

    @post(
        "/email/confirm",
        summary="Confirm an address",
        status_code=204,
        security=[{}, *SECURITY],
        guards=COSTLY,
        dependencies={"caller": Provide(identify_user_if_any)},
        responses=problems(
            *BODY, errors.TokenUnusable, errors.TooManyRequests, errors.Unauthenticated,
            errors.Unavailable, errors.WrongPassword,
        ),
    )  # fmt: skip
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        caller: NamedDependency[UUID | None],
        data: JSONBody[ConfirmEmailRequest],
        use: FromDishka[ConfirmEmail],
    ) -> None:
        """Confirm an address with the token that was mailed to it; each works once, for a day.

        Whoever confirms has to be who registered: send the password of the account, or a bearer
        token of it. A wrong password does not use the token up.
        """
        address = client_address(request.scope)
        await use(data.token, caller=caller, password=data.password, address=address)

    @post(
        "/email/disown",
        summary="Disown an address",
        status_code=204,
        guards=COSTLY,
        responses=problems(*BODY, errors.TokenUnusable, errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def disown(
        self, data: JSONBody[DisownEmailRequest], use: FromDishka[DisownEmail]
    ) -> None:
        """Erase the account of a confirmation mail, for whoever got the mail and made no account.

        Only an account that was never confirmed can be disowned. The address is free afterwards.
        """
        await use(data.token)

    @post(
        "/password/forgot",
        summary="Mail a link for a new password",
        status_code=202,
        guards=COSTLY,
        before_request=recall,
        responses=problems(*BODY, *REPEATED, errors.TooManyRequests, errors.Unavailable)
        | ON_ITS_WAY,
    )
    @inject
    async def forgot(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[Forgotten],
        use: FromDishka[ForgotPassword],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail a link to whoever has the address. The answer is the same when nobody has."""
        return await queue_mail(use, data.email, request, idempotency_key)

    @post(
        "/password/reset",
        summary="Set a new password",
        status_code=204,
        guards=COSTLY,
        responses=problems(
            *BODY, errors.TokenUnusable, errors.TooManyRequests, errors.WeakPassword,
            errors.Unavailable,
        ),
    )  # fmt: skip
    @inject
    async def reset(self, data: JSONBody[Reset], use: FromDishka[ResetPassword]) -> None:
        """Set a password with the token that was mailed; it works once, for an hour. Every
        session ends.
        """
        await use(data.token, data.new_password)
