"""Who sent a request: the bearer check (RFC 6750)."""

from typing import Any
from uuid import UUID

from litestar import Request
from litestar.connection import ASGIConnection

from referral.core.entities.clients import Caller, Scope
from referral.core.errors import InsufficientScope, Unauthenticated
from referral.core.ports.security import AccessTokenIssuer

SECURITY_REQUIREMENTS: list[dict[str, list[str]]] = [{"password": []}, {"bearer": []}]
"""The ways to authorise, for the OpenAPI document."""


CALLER_STATE_KEY = "caller"
"""Where in a request's state it stands, once it is known."""


async def authenticate(request: ASGIConnection[Any, Any, Any, Any]) -> Caller:
    """Return who sent the request, or raise `Unauthenticated`."""
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
    """Return the user who sent the request; raises `InsufficientScope` for a client."""
    caller = await authenticate(request)
    if caller.user_id is None:
        raise InsufficientScope
    return caller.user_id


async def authenticate_optional_user(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the user who sent the request, or None without an `Authorization` header."""
    if "authorization" not in request.headers:
        return None
    return (await authenticate(request)).user_id


async def find_session_id(request: Request[Any, Any, Any]) -> UUID | None:
    """Return the login that the request's token comes from."""
    return (await authenticate(request)).session_id


async def check_lookup_access(request: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    """Let anyone look codes up, or as the settings say, users and clients with `codes:read`."""
    if request.app.state.public_lookups:
        return
    caller = await authenticate(request)
    if caller.user_id is None and Scope.CODES_READ not in caller.scopes:
        raise InsufficientScope
