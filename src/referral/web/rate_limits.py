"""Limits on routes, and whose requests are counted together."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Scope

from referral.core.entities.rate_limits import NETWORK_GROUPS, RateLimitGroup, RateLimitResult
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import RateLimiter
from referral.web.auth import authenticate
from referral.web.client_ip import ClientIp, TrustedProxies

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], object], Awaitable[None]]


def limit_by_ip(group: RateLimitGroup) -> Guard:
    """Make a guard that counts requests by the caller's network address."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        await count_by_ip(connection.scope, group)

    return guard


def limit_by_account(group: RateLimitGroup) -> Guard:
    """Make a guard that counts requests by account; raises `Unauthenticated` without a bearer."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        caller = await authenticate(connection)
        await _count(connection.scope, group, str(caller.user_id or caller.client_id))

    return guard


TOKEN_LIMITS = (limit_by_ip(RateLimitGroup.TOKEN),)
"""The guards of each public route that hashes a password or sends a mail."""

LOOKUP_LIMITS_BY_ACCOUNT = (
    limit_by_account(RateLimitGroup.LOOKUP),
    limit_by_ip(RateLimitGroup.LOOKUP),
)
"""The guards of a route by which a signed-in user learns whether a code is usable."""

TOKEN_LIMITS_BY_ACCOUNT = (
    limit_by_account(RateLimitGroup.TOKEN),
    limit_by_ip(RateLimitGroup.TOKEN),
)
"""The same for signed-in users: a stolen access token allows no more guesses than a log-in."""


async def count_by_ip(scope: Scope, group: RateLimitGroup) -> None:
    """Count a request by the caller's address and, of IPv6, by the network around it."""
    client_ip = _client_ip(scope)
    # The network first: its many sites must not push the windows of others out of memory.
    if client_ip.network is not None:
        await _count(scope, NETWORK_GROUPS[group], client_ip.network)
    await _count(scope, group, client_ip.site)


def client_ip_of(scope: Scope) -> str:
    """Return whose request it is, as far as the network tells."""
    return _client_ip(scope).site


def _client_ip(scope: Scope) -> ClientIp:
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    peer = scope["client"]
    return proxies.client_ip(peer[0] if peer else "", scope["headers"])


async def _count(scope: Scope, group: RateLimitGroup, key: str) -> None:
    """Count a request, and have its answer say so, or raise `TooManyRequests`."""
    limits: RateLimiter = scope["litestar_app"].state.limits
    result = await limits.hit(group, key)
    if result is None:
        return
    _store_headers(scope["state"], group, result)
    if not result.allowed:
        raise TooManyRequests(retry_after=timedelta(seconds=result.reset_seconds))


def _store_headers(state: dict[str, Any], group: RateLimitGroup, result: RateLimitResult) -> None:
    """Keep the headers of the limit that leaves the least; a request may count against several."""
    if result.remaining <= state.get("limit_remaining", result.remaining):
        state["limit_remaining"] = result.remaining
        state["limit_headers"] = _headers(group, result)


def _headers(group: RateLimitGroup, result: RateLimitResult) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"ratelimit-policy", f'"{group}";q={result.limit};w={result.window_seconds}'.encode()),
        (b"ratelimit", f'"{group}";r={result.remaining};t={result.reset_seconds}'.encode()),
    )
