"""The token endpoint (RFC 6749)."""

from dataclasses import dataclass
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from litestar.openapi.spec import Example, OpenAPIType, Operation, Reference, Schema
from msgspec import UNSET, Struct, UnsetType

from referral.core.entities.clients import Scope
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID
from referral.core.errors import TooManyRequests, Unavailable
from referral.core.policies.client_identification import IdentifyPublicClient
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.authorization_codes import ExchangeAuthorizationCode
from referral.core.use_cases.clients import AuthenticateClient, ClientToken, IssueClientToken
from referral.core.use_cases.sessions import (
    LogIn,
    RefreshSession,
)
from referral.web.injection import inject
from referral.web.oauth import (
    INVALID_CLIENT_SPEC,
    NO_STORE_HEADERS,
    TOKEN_ERROR_HANDLERS,
    TOKEN_ERROR_SPEC,
    TokenRequestError,
    describe_form,
    read_client_form,
    require_client,
    require_field,
    text_schema,
)
from referral.web.problem_types import problem_responses
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of

GRANTS = ["password", "authorization_code", "refresh_token", "client_credentials"]
USERNAME, PASSWORD = "ann@example.com", "correct horse battery"
FORM_FIELDS = {
    "grant_type": Schema(
        type=OpenAPIType.STRING,
        description="The operator can switch `password` off; see `grant_types_supported` of the "
        "metadata.",
        enum=GRANTS,
    ),
    "username": text_schema("The e-mail address, for the grant `password`.", USERNAME),
    "password": text_schema("The password, for the grant `password`.", PASSWORD),
    "code": text_schema("The code, for the grant `authorization_code`."),
    "redirect_uri": text_schema("That of the authorization request."),
    "code_verifier": text_schema("The verifier of its `code_challenge` (RFC 7636)."),
    "refresh_token": text_schema("The latest refresh token, for the grant `refresh_token`."),
    "scope": text_schema(
        f"`{Scope.ACCOUNT}` for users, granted scopes for clients; all of them by default."
    ),
}
FORM_EXAMPLES: dict[str, Example | Reference] = {
    "password": Example(
        summary="Log in",
        value={
            "grant_type": "password",
            "username": USERNAME,
            "password": PASSWORD,
        },
    ),
    "authorization_code": Example(
        summary="Exchange a code of a public client",
        value={
            "grant_type": "authorization_code",
            "code": "kJ3dV8yXo2Qn5Rz7Wb1Tc4Hs6Gm9Fp0La_Ue-iNvYxA",
            "redirect_uri": "https://app.example.com/callback",
            "client_id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41",
            "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        },
    ),
    "refresh_token": Example(
        summary="Refresh the tokens",
        value={
            "grant_type": "refresh_token",
            "refresh_token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7Ls1Vb4Nc5Xd",
        },
    ),
    "client_credentials": Example(
        summary="Get a token for a client",
        value={"grant_type": "client_credentials", "scope": "referrals:read"},
    ),
}

CODE_FIELDS = ("code", "redirect_uri", "code_verifier")

CLIENT_GRANT_MESSAGE = (
    "This client may use only the grant 'client_credentials'. Remove the client's secret."
)


@dataclass(frozen=True, slots=True)
class SupportedGrants:
    """The grants that the token endpoint supports."""

    password: bool

    def names(self) -> list[str]:
        """Return the values of `grant_type`."""
        return [name for name in GRANTS if self.password or name != "password"]


class TokenResponse(Struct):
    """A successful token response (RFC 6749, section 5.1); clients get no refresh token."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str | UnsetType = UNSET


@dataclass
class GrantFormOperation(Operation):
    """The OpenAPI operation, with a form whose fields depend on the grant."""

    def __post_init__(self) -> None:
        """Add the form."""
        self.request_body = describe_form(FORM_FIELDS, ["grant_type"], FORM_EXAMPLES)


class TokenController(Controller):
    """Route for tokens."""

    path = "/api/v1/auth"
    guards = TOKEN_LIMITS
    tags = ("Tokens",)
    exception_handlers = TOKEN_ERROR_HANDLERS

    @post(
        "/token",
        operation_id="issueToken",
        summary="Issue a token",
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
        identify: FromDishka[IdentifyPublicClient],
        exchange: FromDishka[ExchangeAuthorizationCode],
        grants: FromDishka[SupportedGrants],
    ) -> Response[TokenResponse]:
        """Log in with `grant_type=password`, exchange a code of `/oauth/authorize` with
        `grant_type=authorization_code`, or refresh the tokens with `grant_type=refresh_token`.
        Other services get a token with `grant_type=client_credentials`. A refresh token of a code
        belongs to its client, which sends its `client_id` or authenticates.
        """
        client, form = await read_client_form(request, authenticate)
        grant, scope = require_field(form, "grant_type"), form.get("scope", "")
        if grant not in grants.names():
            raise TokenRequestError(
                "unsupported_grant_type", "The service does not support this grant type."
            )
        if grant == "client_credentials":
            return _token_response(await issue(require_client(client), scope))
        if client is not None and (grant == "password" or not client.redirect_uris):
            raise TokenRequestError("unauthorized_client", CLIENT_GRANT_MESSAGE)
        _check_scope(scope)
        if grant == "password":
            name, password = require_field(form, "username"), require_field(form, "password")
            return _token_response(await log_in(name, password, client_ip_of(request.scope)))
        if grant == "authorization_code":
            client = client or await identify(require_field(form, "client_id"))
            fields = (require_field(form, name) for name in CODE_FIELDS)
            return _token_response(await exchange(client, *fields))
        token, client_id = require_field(form, "refresh_token"), form.get("client_id")
        if client is None and client_id not in {None, FIRST_PARTY_CLIENT_ID}:
            client = await identify(client_id or "")
        owner = str(client.id) if client else FIRST_PARTY_CLIENT_ID
        return _token_response(await refresh(token, owner))


def _check_scope(scope: str) -> None:
    if set(scope.split()) - {Scope.ACCOUNT}:
        raise TokenRequestError("invalid_scope", f"The only scope for users is '{Scope.ACCOUNT}'.")


def _token_response(tokens: TokenPair | ClientToken) -> Response[TokenResponse]:
    pair = TokenResponse(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - a token type, not a secret
        expires_in=tokens.expires_in,
        scope=tokens.scope,
        refresh_token=tokens.refresh_token if isinstance(tokens, TokenPair) else UNSET,
    )
    return Response(pair, headers=NO_STORE_HEADERS)
