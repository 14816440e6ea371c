"""The token endpoint (RFC 6749)."""

from dataclasses import dataclass
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.openapi.spec import Example, Operation, Reference
from msgspec import UNSET, Struct, UnsetType

from referral.core.entities.clients import Client, Scope
from referral.core.errors import InvalidClient, TooManyRequests, Unavailable
from referral.core.use_cases.clients import AuthenticateClient, ClientToken, IssueClientToken
from referral.core.use_cases.sessions import LogIn, RefreshSession, TokenPair
from referral.web.injection import inject
from referral.web.oauth_forms import (
    INVALID_CLIENT_SPEC,
    NO_STORE_HEADERS,
    TOKEN_ERROR_HANDLERS,
    TOKEN_ERROR_SPEC,
    TokenRequestError,
    check_content_type,
    describe_form,
    find_client_credentials,
    read_form,
    require_field,
)
from referral.web.problems import problem_responses
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of

FORM_FIELDS = {
    "grant_type": "`password`, `refresh_token`, or `client_credentials` with HTTP Basic.",
    "username": "The e-mail address, for the grant `password`.",
    "password": "The password, for the grant `password`.",
    "refresh_token": "The newest refresh token, for the grant `refresh_token`.",
    "scope": f"A user has `{Scope.ACCOUNT}`, a client what it was given; without it one gets all.",
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
    "client_credentials": Example(
        summary="Get a token for a client, with its id and secret by HTTP Basic",
        value={"grant_type": "client_credentials", "scope": "referrals:read"},
    ),
}

CLIENT_GRANT_MESSAGE = (
    "A client has the grant 'client_credentials' alone. Leave the Authorization header out."
)


@dataclass(frozen=True, slots=True)
class SupportedGrants:
    """Which grants the token endpoint takes."""

    password: bool

    def names(self) -> list[str]:
        """Return their names."""
        return [*(["password"] if self.password else []), "refresh_token", "client_credentials"]


class TokenResponse(Struct):
    """A successful answer (RFC 6749, section 5.1); a client gets no refresh token."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str | UnsetType = UNSET


@dataclass
class GrantFormOperation(Operation):
    """The operation with its form, whose fields depend on the grant."""

    def __post_init__(self) -> None:
        """Describe the form."""
        self.request_body = describe_form(FORM_FIELDS, ["grant_type"], FORM_EXAMPLES)


class TokenController(Controller):
    """Logging in and staying so."""

    path = "/api/v1/auth"
    guards = TOKEN_LIMITS
    tags = ("Tokens",)
    exception_handlers = TOKEN_ERROR_HANDLERS

    @post(
        "/token",
        summary="Get tokens",
        status_code=200,
        security=[{}, {"client": []}],
        operation_class=GrantFormOperation,
        responses=problem_responses(408, 413, TooManyRequests, Unavailable)
        | {400: TOKEN_ERROR_SPEC, 401: INVALID_CLIENT_SPEC},
    )
    @inject
    async def token(
        self,
        request: Request[Any, Any, Any],
        log_in: FromDishka[LogIn],
        refresh: FromDishka[RefreshSession],
        authenticate: FromDishka[AuthenticateClient],
        issue: FromDishka[IssueClientToken],
        grants: FromDishka[SupportedGrants],
    ) -> Response[TokenResponse]:
        """Log in with `grant_type=password`, or trade a refresh token for the next pair. Another
        service gets a token of its own with `grant_type=client_credentials`, and has no other
        grant: with its authentication the other two are `unauthorized_client`.
        """
        check_content_type(request)
        client = await authenticate(find_client_credentials(request))
        form = await read_form(request)
        grant, scope = require_field(form, "grant_type"), form.get("scope", "")
        if grant not in grants.names():
            raise TokenRequestError("unsupported_grant_type", "This service has no such grant.")
        if grant == "client_credentials":
            return _token_response(await issue(_require_client(client), scope))
        if client is not None:
            raise TokenRequestError("unauthorized_client", CLIENT_GRANT_MESSAGE)
        _check_scope(scope)
        if grant == "password":
            name, password = require_field(form, "username"), require_field(form, "password")
            return _token_response(await log_in(name, password, client_ip_of(request.scope)))
        return _token_response(await refresh(require_field(form, "refresh_token")))


def _require_client(client: Client | None) -> Client:
    if client is None:
        raise InvalidClient
    return client


def _check_scope(scope: str) -> None:
    if set(scope.split()) - {Scope.ACCOUNT}:
        raise TokenRequestError("invalid_scope", f"The one scope of a user is '{Scope.ACCOUNT}'.")


def _token_response(tokens: TokenPair | ClientToken) -> Response[TokenResponse]:
    pair = TokenResponse(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - the type, no token
        expires_in=tokens.expires_in,
        scope=tokens.scope,
        refresh_token=tokens.refresh_token if isinstance(tokens, TokenPair) else UNSET,
    )
    return Response(pair, headers=NO_STORE_HEADERS)
