"""Token introspection (RFC 7662) and revocation (RFC 7009)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, Struct, UnsetType

from referral.core.errors import Unavailable
from referral.core.use_cases.clients import AuthenticateClient, IntrospectionResult, IntrospectToken
from referral.core.use_cases.sessions import RevokeSession
from referral.web.field_types import UnixTime
from referral.web.injection import inject
from referral.web.oauth import read_client_form, require_client, require_field
from referral.web.oauth_errors import (
    INVALID_CLIENT_SPEC,
    NO_STORE_HEADERS,
    TOKEN_ERROR_HANDLERS,
    TOKEN_ERROR_SPEC,
)
from referral.web.openapi_forms import TokenFormOperation
from referral.web.problem_types import problem_responses
from referral.web.public_urls import PublicUrls


class ActingParty(Struct):
    """The client that acts for the user (RFC 8693, section 4.1)."""

    sub: str


class IntrospectionResponse(Struct):
    """The state of a token; an inactive token has no other fields."""

    active: bool
    scope: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    email_verified: bool | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    exp: UnixTime | UnsetType = UNSET
    iat: UnixTime | UnsetType = UNSET
    sub: str | UnsetType = UNSET
    aud: str | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    act: ActingParty | UnsetType = UNSET


class TokenIntrospectionController(Controller):
    """Routes for revocation and introspection."""

    path = "/api/v1/auth"
    tags = ("Clients",)
    exception_handlers = TOKEN_ERROR_HANDLERS

    @post(
        "/revoke",
        operation_id="revokeToken",
        summary="Revoke a token",
        status_code=200,
        security=[{}, {"client": []}],
        operation_class=TokenFormOperation,
        responses=problem_responses(408, 413, Unavailable)
        | {
            200: ResponseSpec(None, description="The token is no longer valid."),
            400: TOKEN_ERROR_SPEC,
            401: INVALID_CLIENT_SPEC,
        },
    )
    @inject
    async def revoke(
        self,
        request: Request[Any, Any, Any],
        authenticate: FromDishka[AuthenticateClient],
        revoke: FromDishka[RevokeSession],
    ) -> Response[None]:
        """Log out: end the session of an access or refresh token (RFC 7009). The response to an
        unknown token is the same. Client authentication is optional, but rejected if invalid.
        """
        _, form = await read_client_form(request, authenticate)
        await revoke(require_field(form, "token"))
        return Response(None, media_type=MediaType.TEXT, headers=NO_STORE_HEADERS)

    @post(
        "/introspect",
        operation_id="introspectToken",
        summary="Introspect a token",
        status_code=200,
        security=[{"client": []}],
        operation_class=TokenFormOperation,
        responses=problem_responses(408, 413, Unavailable)
        | {400: TOKEN_ERROR_SPEC, 401: INVALID_CLIENT_SPEC},
    )
    @inject
    async def introspect(
        self,
        request: Request[Any, Any, Any],
        authenticate: FromDishka[AuthenticateClient],
        introspect: FromDishka[IntrospectToken],
        urls: FromDishka[PublicUrls],
    ) -> Response[IntrospectionResponse]:
        """Return whether a token is active (RFC 7662): its session has not ended, and its account
        exists. `username` requires the scope `users:read` and a confirmed e-mail address.
        """
        client, form = await read_client_form(request, authenticate, client_required=True)
        result = await introspect(require_client(client), require_field(form, "token"))
        response = (
            IntrospectionResponse(active=False)
            if result is None
            else _active_token(result, urls.public_url)
        )
        return Response(response, headers=NO_STORE_HEADERS)


def _active_token(result: IntrospectionResult, issuer: str) -> IntrospectionResponse:
    response = IntrospectionResponse(
        active=True,
        scope=result.scope,
        client_id=result.client_id,
        username=result.email or UNSET,
        email_verified=UNSET if result.email_verified is None else result.email_verified,
        exp=result.expires_at,
        sub=result.subject,
        iss=issuer,
    )
    if result.claims is not None:
        response.token_type = "Bearer"  # noqa: S105 - a token type, not a secret
        response.iat, response.jti = result.claims.issued_at, result.claims.id
        response.aud = issuer
        acting_client = result.claims.caller.acting_client
        response.act = ActingParty(acting_client) if acting_client else UNSET
    return response
