"""The token endpoint (RFC 6749)."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
)
from msgspec import Struct

from referral.core.errors import InvalidGrant, TooManyRequests, Unavailable
from referral.core.model import Scope
from referral.core.sessions import LogIn, Refresh, Tokens
from referral.web.limits import client_address, limited
from referral.web.problems import problems
from referral.web.wiring import inject

FORM = "application/x-www-form-urlencoded"
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
MAX_FIELDS = 20

FIELDS = {
    "username": "The e-mail address, for the grant `password`.",
    "password": "The password, for the grant `password`.",
    "refresh_token": "The newest refresh token, for the grant `refresh_token`.",
    "scope": f"At most `{Scope.ACCOUNT}`, which is also what one gets without it.",
}
FORM_EXAMPLES: dict[str, Example | Reference] = {
    "password": Example(
        summary="Log in",
        value={
            "grant_type": "password",
            "username": "ann@example.com",
            "password": "correct horse battery",
        },
    ),
    "refresh_token": Example(
        summary="Trade a refresh token for the next pair",
        value={
            "grant_type": "refresh_token",
            "refresh_token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7Ls1Vb4Nc5Xd",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Grants:
    """Which grants the token endpoint takes beside refresh tokens."""

    password: bool

    def supported(self) -> list[str]:
        """Return their names."""
        return [*(["password"] if self.password else []), "refresh_token"]


class TokenPair(Struct):
    """A successful answer (RFC 6749, section 5.1)."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str
    scope: str


class TokenError(Struct):
    """A refusal (RFC 6749, section 5.2)."""

    error: str
    error_description: str


class BadTokenRequest(HTTPException):
    """A token request out of shape; `detail` is the description, `error` the code of the RFC."""

    status_code = 400

    def __init__(self, error: str, description: str) -> None:
        """Take one of the RFC's codes and a sentence."""
        super().__init__(description)
        self.error = error


class TokenOperation(Operation):
    """The operation with its form, whose fields depend on the grant."""

    def __post_init__(self) -> None:
        """Describe the form."""
        fields: dict[str, Reference | Schema] = {
            name: Schema(type=OpenAPIType.STRING, description=description)
            for name, description in FIELDS.items()
        }
        grants = list(FORM_EXAMPLES)
        fields["grant_type"] = Schema(type=OpenAPIType.STRING, enum=grants)
        form = Schema(type=OpenAPIType.OBJECT, properties=fields, required=["grant_type"])
        medium = OpenAPIMediaType(form, examples=FORM_EXAMPLES)
        self.request_body = RequestBody({FORM: medium}, required=True)


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the form's fields, each sent once; raises `BadTokenRequest`."""
    if request.content_type[0] != FORM:
        raise BadTokenRequest("invalid_request", f"Send a form: Content-Type {FORM}.")
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise BadTokenRequest("invalid_request", "The form cannot be read.") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise BadTokenRequest("invalid_request", "A parameter was sent twice.")
    return {name: value for name, value in fields.items() if value}


def need(form: dict[str, str], name: str) -> str:
    """Return a field of the form, or raise `BadTokenRequest`."""
    if name not in form:
        raise BadTokenRequest("invalid_request", f"The parameter '{name}' is missing.")
    return form[name]


def refuse(_: Request[Any, Any, Any], error: BadTokenRequest) -> Response[TokenError]:
    """Answer in the form of RFC 6749."""
    return Response(TokenError(error.error, error.detail), status_code=400, headers=NO_STORE)


def refuse_grant(_: Request[Any, Any, Any], error: InvalidGrant) -> Response[TokenError]:
    """Answer that the credentials are not valid."""
    return Response(TokenError("invalid_grant", error.detail), status_code=400, headers=NO_STORE)


class TokenEndpoint(Controller):
    """Logging in and staying so."""

    path = "/api/v1/auth"
    guards = (limited("token"),)
    tags = ("Tokens",)
    exception_handlers = {BadTokenRequest: refuse, InvalidGrant: refuse_grant}

    @post(
        "/token",
        summary="Get tokens",
        status_code=200,
        operation_class=TokenOperation,
        responses=problems(413, TooManyRequests, Unavailable)
        | {
            400: ResponseSpec(
                TokenError, generate_examples=False, description="The refusals of RFC 6749, 5.2."
            )
        },
    )
    @inject
    async def token(
        self,
        request: Request[Any, Any, Any],
        log_in: FromDishka[LogIn],
        refresh: FromDishka[Refresh],
        grants: FromDishka[Grants],
    ) -> Response[TokenPair]:
        """Log in with `grant_type=password`, or trade a refresh token for the next pair."""
        form = await read_form(request)
        _check_scope(form.get("scope", ""))
        grant = need(form, "grant_type")
        if grant == "password" and grants.password:
            tokens = await log_in(
                need(form, "username"), need(form, "password"), client_address(request.scope)
            )
        elif grant == "refresh_token":
            tokens = await refresh(need(form, "refresh_token"))
        else:
            raise BadTokenRequest("unsupported_grant_type", "This service has no such grant.")
        return Response(_pair(tokens), headers=NO_STORE)


def _check_scope(scope: str) -> None:
    if set(scope.split()) - {Scope.ACCOUNT}:
        raise BadTokenRequest("invalid_scope", f"The one scope of a user is '{Scope.ACCOUNT}'.")


def _pair(tokens: Tokens) -> TokenPair:
    return TokenPair(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - the type, no token
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh_token,
        scope=tokens.scope,
    )
