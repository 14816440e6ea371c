"""Ending tokens (RFC 7009), and asking whether they are good (RFC 7662)."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, Struct, UnsetType

from referral.core.errors import Unavailable
from referral.core.use_cases.clients import AuthenticateClient, Inspection, Introspect
from referral.core.use_cases.sessions import Revoke
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.oauth_forms import (
    NO_STORE,
    REFUSAL,
    REFUSALS,
    UNKNOWN_CLIENT,
    TokenOnly,
    check_type,
    find_credentials,
    need,
    read_credentials,
    read_form,
)
from referral.web.problems import problems


class Introspection(Struct):
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


class TokenState(Controller):
    """Ending tokens, and asking about them."""

    path = "/api/v1/auth"
    tags = ("Tokens",)
    exception_handlers = REFUSALS

    @post(
        "/revoke",
        summary="Revoke a token",
        status_code=200,
        security=[{}, {"client": []}],
        operation_class=TokenOnly,
        responses=problems(408, 413, Unavailable)
        | {
            200: ResponseSpec(None, description="The token is good no more."),
            400: REFUSAL,
            401: UNKNOWN_CLIENT,
        },
    )
    @inject
    async def revoke(
        self,
        request: Request[Any, Any, Any],
        authenticate: FromDishka[AuthenticateClient],
        use: FromDishka[Revoke],
    ) -> Response[None]:
        """Log out: end the session that the token belongs to (RFC 7009), whatever the token. No
        client has to authenticate; one that does, and cannot, is refused.
        """
        check_type(request)
        await authenticate(find_credentials(request))
        await use(need(await read_form(request), "token"))
        return Response(None, media_type=MediaType.TEXT, headers=NO_STORE)

    @post(
        "/introspect",
        summary="Introspect a token",
        status_code=200,
        security=[{"client": []}],
        operation_class=TokenOnly,
        responses=problems(408, 413, Unavailable) | {400: REFUSAL, 401: UNKNOWN_CLIENT},
    )
    @inject
    async def introspect(
        self,
        request: Request[Any, Any, Any],
        use: FromDishka[Introspect],
        links: FromDishka[Links],
    ) -> Response[Introspection]:
        """Tell a client whether a token is good at this moment (RFC 7662): its session has not
        ended, and its account is there. `username` is for clients with `users:read`, and only
        for an address of which nothing is left to confirm.
        """
        # JSON is refused as such; apart from that, who asks comes before what is asked.
        check_type(request, optional=True)
        credentials = read_credentials(request)
        found = await use(credentials, need(await read_form(request), "token"))
        answer = Introspection(active=False) if found is None else _active(found, links.public_url)
        return Response(answer, headers=NO_STORE)


def _active(found: Inspection, issuer: str) -> Introspection:
    answer = Introspection(
        active=True,
        scope=found.scope,
        client_id=found.client_id,
        username=found.email or UNSET,
        email_verified=UNSET if found.email_verified is None else found.email_verified,
        exp=found.expires_at,
        sub=found.subject,
        iss=issuer,
    )
    if found.access_token is not None:
        answer.token_type = "Bearer"  # noqa: S105 - the type, no token
        answer.iat, answer.jti = found.access_token.issued_at, found.access_token.id
        answer.aud = issuer
    return answer
