"""Authentication and authorization of requests by bearer token (RFC 6750)."""

from typing import Any
from uuid import UUID

from litestar import Request
from litestar.connection import ASGIConnection

from referral.core.entities.clients import Caller, Scope
from referral.core.errors import InsufficientScope, Unauthenticated
from referral.core.policies.authorization import Authorize
from referral.core.ports.security import AccessTokenIssuer

SECURITY_REQUIREMENTS: list[dict[str, list[str]]] = [
    {"password": []},
    {"bearer": []},
]
"""The alternative security schemes of the OpenAPI document, for users."""


def require_scope(scope: Scope) -> dict[str, Any]:
    """Return the options of a route for admins and for clients with this scope.

    Pass them to the decorator: `@get(…, **require_scope(Scope.EVENTS_READ))`. The guard runs before
    the request is read.
    """

    async def guard(request: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        caller = await authenticate(request)
        authorize: Authorize = await request.app.state.container.get(Authorize)
        await authorize(caller, scope)

    return {"guards": [guard], "security": client_security(scope)}


def client_security(scope: Scope) -> list[dict[str, list[str]]]:
    """Return the alternatives of a route for users and for clients with this scope."""
    return [*SECURITY_REQUIREMENTS, {"clientCredentials": [scope]}]


CALLER_STATE_KEY = "caller"
"""The key of the request state under which the authenticated caller is cached."""


async def authenticate(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Return the caller; raises `Unauthenticated`."""
    state = request.scope["state"]
    if CALLER_STATE_KEY not in state:
        state[CALLER_STATE_KEY] = _authenticate(request)
    caller: Caller = state[CALLER_STATE_KEY]
    return caller


def _authenticate(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    values = request.headers.getall("authorization", [])
    scheme, _, token = (values[0] if len(values) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated
    tokens: AccessTokenIssuer = request.app.state.access_tokens
    return tokens.verify(token.strip()).caller


async def authenticate_user(request: Request[Any, Any, Any]) -> UUID:
    """Return the id of the user; raises `InsufficientScope` for a client's token."""
    caller = await authenticate(request)
    if caller.user_id is None:
        raise InsufficientScope
    return caller.user_id


async def forbid_acting_clients(request: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    """Guard routes that are for users themselves; raises `InsufficientScope`."""
    if (await authenticate(request)).acting_client is not None:
        raise InsufficientScope("A client that acts for a user may not do this.")


async def authenticate_optional_user(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the id of the user, or None without an `Authorization` header."""
    if "authorization" not in request.headers:
        return None
    return (await authenticate(request)).user_id


async def find_session_id(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the id of the access token's session, if it has one."""
    return (await authenticate(request)).session_id
