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
from referral.core.use_cases.sessions import LogIn, Refresh, Tokens
from referral.web.injection import inject
from referral.web.oauth_forms import (
    NO_STORE,
    REFUSAL,
    REFUSALS,
    UNKNOWN_CLIENT,
    BadTokenRequest,
    check_type,
    describe_form,
    find_credentials,
    need,
    read_form,
)
from referral.web.problems import problems
from referral.web.rate_limits import COSTLY, client_address

FIELDS = {
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

NOT_FOR_CLIENTS = (
    "A client has the grant 'client_credentials' alone. Leave the Authorization header out."
)


@dataclass(frozen=True, slots=True)
class Grants:
    """Which grants the token endpoint takes."""

    password: bool

    def supported(self) -> list[str]:
        """Return their names."""
        return [*(["password"] if self.password else []), "refresh_token", "client_credentials"]


class TokenPair(Struct):
    """A successful answer (RFC 6749, section 5.1); a client gets no refresh token."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str | UnsetType = UNSET


@dataclass
class TokenOperation(Operation):
    """The operation with its form, whose fields depend on the grant."""

    def __post_init__(self) -> None:
        """Describe the form."""
        self.request_body = describe_form(FIELDS, ["grant_type"], FORM_EXAMPLES)


class TokenEndpoint(Controller):
    """Logging in and staying so."""

    path = "/api/v1/auth"
    guards = COSTLY
    tags = ("Tokens",)
    exception_handlers = REFUSALS

    @post(
        "/token",
        summary="Get tokens",
        status_code=200,
        security=[{}, {"client": []}],
        operation_class=TokenOperation,
        responses=problems(408, 413, TooManyRequests, Unavailable)
        | {400: REFUSAL, 401: UNKNOWN_CLIENT},
    )
    @inject
    async def token(
        self,
        request: Request[Any, Any, Any],
        log_in: FromDishka[LogIn],
        refresh: FromDishka[Refresh],
        authenticate: FromDishka[AuthenticateClient],
        issue: FromDishka[IssueClientToken],
        grants: FromDishka[Grants],
    ) -> Response[TokenPair]:
        """Log in with `grant_type=password`, or trade a refresh token for the next pair. Another
        service gets a token of its own with `grant_type=client_credentials`, and has no other
        grant: with its authentication the other two are `unauthorized_client`.
        """
        check_type(request)
        client = await authenticate(find_credentials(request))
        form = await read_form(request)
        grant, scope = need(form, "grant_type"), form.get("scope", "")
        if grant not in grants.supported():
            raise BadTokenRequest("unsupported_grant_type", "This service has no such grant.")
        if grant == "client_credentials":
            return _answer(await issue(_required(client), scope))
        if client is not None:
            raise BadTokenRequest("unauthorized_client", NOT_FOR_CLIENTS)
        _check_scope(scope)
        if grant == "password":
            name, password = need(form, "username"), need(form, "password")
            return _answer(await log_in(name, password, client_address(request.scope)))
        return _answer(await refresh(need(form, "refresh_token")))


def _required(client: Client | None) -> Client:
    if client is None:
        raise InvalidClient
    return client


def _check_scope(scope: str) -> None:
    if set(scope.split()) - {Scope.ACCOUNT}:
        raise BadTokenRequest("invalid_scope", f"The one scope of a user is '{Scope.ACCOUNT}'.")


def _answer(tokens: Tokens | ClientToken) -> Response[TokenPair]:
    pair = TokenPair(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - the type, no token
        expires_in=tokens.expires_in,
        scope=tokens.scope,
        refresh_token=tokens.refresh_token if isinstance(tokens, Tokens) else UNSET,
    )
    return Response(pair, headers=NO_STORE)
