"""Rate limits of routes, by client IP and by account."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.types import Scope

from referral.core.entities.rate_limits import NETWORK_GROUPS, RateLimitGroup, RateLimitResult
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import RateLimiter
from referral.web.auth import authenticate
from referral.web.client_ip import ClientIp, TrustedProxies

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], object], Awaitable[None]]


def limit_by_ip(group: RateLimitGroup) -> Guard:
    """Return a guard that limits requests by client IP."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        await count_by_ip(connection.scope, group)

    return guard


def limit_by_account(group: RateLimitGroup) -> Guard:
    """Return a guard that limits requests by account; it raises `Unauthenticated`."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        await count_by_account(connection, group)

    return guard


TOKEN_LIMITS = (limit_by_ip(RateLimitGroup.TOKEN),)
"""The guards of each public route that hashes a password or sends a mail."""

LOOKUP_LIMITS_BY_ACCOUNT = (
    limit_by_account(RateLimitGroup.LOOKUP),
    limit_by_ip(RateLimitGroup.LOOKUP),
)
"""The guards of a route that tells an authenticated user whether a code is usable."""

TOKEN_LIMITS_BY_ACCOUNT = (
    limit_by_account(RateLimitGroup.TOKEN),
    limit_by_ip(RateLimitGroup.TOKEN),
)
"""The guards of each authenticated route that hashes a password or sends a mail.

With a stolen access token, an attacker can guess the password no more often than at the token
endpoint.
"""


async def count_by_account(
    connection: ASGIConnection[Any, Any, Any, Any], group: RateLimitGroup
) -> None:
    """Count a request by the caller's account or client; raises `TooManyRequests`."""
    caller = await authenticate(connection)
    await _count(connection.scope, group, str(caller.user_id or caller.client_id))


async def count_by_ip(scope: Scope, group: RateLimitGroup) -> None:
    """Count a request by client IP and, for IPv6, by its network; raises `TooManyRequests`."""
    client_ip = _client_ip(scope)
    # The network comes first, so that its many sites cannot evict the counters of others.
    if client_ip.network is not None:
        await _count(scope, NETWORK_GROUPS[group], client_ip.network)
    await _count(scope, group, client_ip.site)


async def count_by_user(scope: Scope, group: RateLimitGroup, user_id: UUID) -> None:
    """Count a request of a user who is logged in on the pages; raises `TooManyRequests`."""
    await _count(scope, group, str(user_id))


def client_ip_of(scope: Scope) -> str:
    """Return the client IP; for IPv6, its site."""
    return _client_ip(scope).site


def _client_ip(scope: Scope) -> ClientIp:
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    peer = scope["client"]
    return proxies.client_ip(peer[0] if peer else "", scope["headers"])


async def _count(scope: Scope, group: RateLimitGroup, key: str) -> None:
    """Count a request, and set the headers of its response; raises `TooManyRequests`."""
    limits: RateLimiter = scope["litestar_app"].state.limits
    result = await limits.hit(group, key)
    if result is None:
        return
    _store_headers(scope["state"], group, result)
    if not result.allowed:
        raise TooManyRequests(retry_after=timedelta(seconds=result.reset_seconds))


def _store_headers(state: dict[str, Any], group: RateLimitGroup, result: RateLimitResult) -> None:
    """Keep the headers of the limit with the fewest remaining requests, if several limits apply."""
    if result.remaining <= state.get("limit_remaining", result.remaining):
        state["limit_remaining"] = result.remaining
        state["limit_headers"] = _headers(group, result)


def _headers(group: RateLimitGroup, result: RateLimitResult) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"ratelimit-policy", f'"{group}";q={result.limit};w={result.window_seconds}'.encode()),
        (b"ratelimit", f'"{group}";r={result.remaining};t={result.reset_seconds}'.encode()),
    )
