"""The token endpoint (RFC 6749)."""

from contextlib import suppress
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, post
from msgspec import UNSET, Struct, UnsetType

from referral.core.entities.clients import Client, Scope
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID
from referral.core.entities.subject_tokens import (
    ACCESS_TOKEN_TYPE,
    TOKEN_EXCHANGE_GRANT,
    SubjectTokenType,
)
from referral.core.errors import TooManyRequests, Unavailable
from referral.core.policies.client_identification import IdentifyPublicClient
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.authorization_codes import ExchangeAuthorizationCode
from referral.core.use_cases.clients import AuthenticateClient, ClientToken, IssueClientToken
from referral.core.use_cases.sessions import LogIn, RefreshSession
from referral.core.use_cases.token_exchange import ExchangedToken, ExchangeToken
from referral.web.injection import inject
from referral.web.oauth import (
    SupportedGrants,
    read_client_form,
    read_form,
    require_client,
    require_field,
)
from referral.web.oauth_errors import (
    INVALID_CLIENT_SPEC,
    NO_STORE_HEADERS,
    TOKEN_ERROR_HANDLERS,
    TOKEN_ERROR_SPEC,
    TokenRequestError,
)
from referral.web.openapi_forms import GrantFormOperation
from referral.web.problem_types import problem_responses
from referral.web.rate_limits import client_ip_of, count_by_ip

CODE_FIELDS = ("code", "redirect_uri", "code_verifier")

CLIENT_GRANT_MESSAGE = (
    "This client may not use this grant type. Use 'client_credentials', or remove its secret."
)


class TokenResponse(Struct):
    """A successful token response (RFC 6749, section 5.1); clients get no refresh token."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str
    refresh_token: str | UnsetType = UNSET
    issued_token_type: str | UnsetType = UNSET


class TokenController(Controller):
    """Route for tokens."""

    path = "/api/v1/auth"
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
        act: FromDishka[ExchangeToken],
        grants: FromDishka[SupportedGrants],
    ) -> Response[TokenResponse]:
        """Log in with `grant_type=password`, exchange a code of `/oauth/authorize` with
        `grant_type=authorization_code`, or refresh the tokens with `grant_type=refresh_token`.
        Other services get a token with `grant_type=client_credentials`. A refresh token of a code
        belongs to its client, which sends its `client_id` or authenticates. A client with the
        scope `users:act` gets a token for one of its users by token exchange (RFC 8693).
        """
        await _count(request)
        client, form = await read_client_form(request, authenticate)
        grant, scope = require_field(form, "grant_type"), form.get("scope", "")
        if grant not in grants.names():
            raise TokenRequestError(
                "unsupported_grant_type", "The service does not support this grant type."
            )
        if grant == "client_credentials":
            return _token_response(await issue(require_client(client), scope))
        if grant == TOKEN_EXCHANGE_GRANT:
            return await _exchange(act, require_client(client), form)
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


async def _count(request: Request[Any, Any, Any]) -> None:
    """Count the request by client IP, except a token exchange, which is counted by user.

    All exchanges of a product come from one client IP.
    """
    form: dict[str, str] = {}
    with suppress(TokenRequestError):
        form = await read_form(request)
    if form.get("grant_type") != TOKEN_EXCHANGE_GRANT:
        await count_by_ip(request.scope, RateLimitGroup.TOKEN)


async def _exchange(
    exchange: ExchangeToken, client: Client, form: dict[str, str]
) -> Response[TokenResponse]:
    token = require_field(form, "subject_token")
    token_type = require_field(form, "subject_token_type")
    if token_type not in list(SubjectTokenType):
        detail = f"Send one of these as 'subject_token_type': {', '.join(SubjectTokenType)}."
        raise TokenRequestError("invalid_request", detail)
    if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
        detail = f"The only 'requested_token_type' is '{ACCESS_TOKEN_TYPE}'."
        raise TokenRequestError("invalid_request", detail)
    if "actor_token" in form or "actor_token_type" in form:
        detail = "Send no 'actor_token': the client itself is the actor."
        raise TokenRequestError("invalid_request", detail)
    if "audience" in form or "resource" in form:
        detail = "Send no 'audience' and no 'resource': the token is for this service."
        raise TokenRequestError("invalid_target", detail)
    _check_scope(form.get("scope", ""))
    issued = await exchange(client, SubjectTokenType(token_type), token)
    response = _token_response(issued)
    response.content.issued_token_type = ACCESS_TOKEN_TYPE
    return response


def _check_scope(scope: str) -> None:
    if set(scope.split()) - {Scope.ACCOUNT}:
        raise TokenRequestError("invalid_scope", f"The only scope for users is '{Scope.ACCOUNT}'.")


def _token_response(
    tokens: TokenPair | ClientToken | ExchangedToken,
) -> Response[TokenResponse]:
    pair = TokenResponse(
        access_token=tokens.access_token,
        token_type="Bearer",  # noqa: S106 - a token type, not a secret
        expires_in=tokens.expires_in,
        scope=tokens.scope,
        refresh_token=tokens.refresh_token if isinstance(tokens, TokenPair) else UNSET,
    )
    return Response(pair, headers=NO_STORE_HEADERS)
