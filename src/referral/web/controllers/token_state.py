"""Ending tokens (RFC 7009), and asking whether they are good (RFC 7662)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, Struct, UnsetType

from referral.core.errors import Unavailable
from referral.core.use_cases.clients import AuthenticateClient, IntrospectionResult, IntrospectToken
from referral.core.use_cases.sessions import RevokeSession
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.oauth_forms import (
    INVALID_CLIENT_SPEC,
    NO_STORE_HEADERS,
    TOKEN_ERROR_HANDLERS,
    TOKEN_ERROR_SPEC,
    TokenFormOperation,
    check_content_type,
    find_client_credentials,
    read_form,
    require_client_credentials,
    require_field,
)
from referral.web.problems import problem_responses


class IntrospectionResponse(Struct):
    """What a token is; of one that is not active, nothing else is told."""

    active: bool
    scope: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    username: str | UnsetType = UNSET
    email_verified: bool | UnsetType = UNSET
    token_type: str | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    iat: int | UnsetType = UNSET
    sub: str | UnsetType = UNSET
    aud: str | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET


class TokenIntrospectionController(Controller):
    """Ending tokens, and asking about them."""

    path = "/api/v1/auth"
    tags = ("Tokens",)
    exception_handlers = TOKEN_ERROR_HANDLERS

    @post(
        "/revoke",
        summary="Revoke a token",
        status_code=200,
        security=[{}, {"client": []}],
        operation_class=TokenFormOperation,
        responses=problem_responses(408, 413, Unavailable)
        | {
            200: ResponseSpec(None, description="The token is good no more."),
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
        """Log out: end the session that the token belongs to (RFC 7009), whatever the token. No
        client has to authenticate; one that does, and cannot, is refused.
        """
        check_content_type(request)
        await authenticate(find_client_credentials(request))
        await revoke(require_field(await read_form(request), "token"))
        return Response(None, media_type=MediaType.TEXT, headers=NO_STORE_HEADERS)

    @post(
        "/introspect",
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
        introspect: FromDishka[IntrospectToken],
        urls: FromDishka[PublicUrls],
    ) -> Response[IntrospectionResponse]:
        """Tell a client whether a token is good at this moment (RFC 7662): its session has not
        ended, and its account is there. `username` is for clients with `users:read`, and only
        for an address of which nothing is left to confirm.
        """
        # JSON is refused as such; apart from that, who asks comes before what is asked.
        check_content_type(request, optional=True)
        credentials = require_client_credentials(request)
        found = await introspect(credentials, require_field(await read_form(request), "token"))
        answer = (
            IntrospectionResponse(active=False)
            if found is None
            else _active_token(found, urls.public_url)
        )
        return Response(answer, headers=NO_STORE_HEADERS)


def _active_token(found: IntrospectionResult, issuer: str) -> IntrospectionResponse:
    answer = IntrospectionResponse(
        active=True,
        scope=found.scope,
        client_id=found.client_id,
        username=found.email or UNSET,
        email_verified=UNSET if found.email_verified is None else found.email_verified,
        exp=found.expires_at,
        sub=found.subject,
        iss=issuer,
    )
    if found.claims is not None:
        answer.token_type = "Bearer"  # noqa: S105 - the type, no token
        answer.iat, answer.jti = found.claims.issued_at, found.claims.id
        answer.aud = issuer
    return answer
