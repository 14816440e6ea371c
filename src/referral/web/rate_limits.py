"""Limits on routes, and whose requests are counted together."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Scope

from referral.core.entities.limits import NETWORK_GROUPS, LimitGroup, RateLimitResult
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import Limits
from referral.web.auth import identify
from referral.web.client_ip import ClientIp, TrustedProxies

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], object], Awaitable[None]]


def by_address(group: LimitGroup) -> Guard:
    """Make a guard that counts requests by the caller's network address."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        await count_address(connection.scope, group)

    return guard


def by_account(group: LimitGroup) -> Guard:
    """Make a guard that counts requests by account; raises `Unauthenticated` without a bearer."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        caller = await identify(connection)
        await _count(connection.scope, group, str(caller.user_id or caller.client_id))

    return guard


COSTLY = (by_address(LimitGroup.TOKEN),)
"""The guards of each public route that hashes a password or sends a mail."""

LOOKUPS_OF_ACCOUNT = (by_account(LimitGroup.LOOKUP), by_address(LimitGroup.LOOKUP))
"""The guards of a route by which a signed-in user learns whether a code is usable."""

COSTLY_OF_ACCOUNT = (by_account(LimitGroup.TOKEN), by_address(LimitGroup.TOKEN))
"""The same for signed-in users: a stolen access token allows no more guesses than a log-in."""


async def count_address(scope: Scope, group: LimitGroup) -> None:
    """Count a request by the caller's address and, of IPv6, by the network around it."""
    client_ip = _client_ip(scope)
    # The network first: its many sites must not push the windows of others out of memory.
    if client_ip.network is not None:
        await _count(scope, NETWORK_GROUPS[group], client_ip.network)
    await _count(scope, group, client_ip.site)


def client_address(scope: Scope) -> str:
    """Return whose request it is, as far as the network tells."""
    return _client_ip(scope).site


def _client_ip(scope: Scope) -> ClientIp:
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    peer = scope["client"]
    return proxies.client(peer[0] if peer else "", scope["headers"])


async def _count(scope: Scope, group: LimitGroup, who: str) -> None:
    """Count a request, and have its answer say so, or raise `TooManyRequests`."""
    limits: Limits = scope["litestar_app"].state.limits
    allowance = await limits.take(group, who)
    if allowance is None:
        return
    _note(scope["state"], group, allowance)
    if not allowance.granted:
        raise TooManyRequests(retry_after=timedelta(seconds=allowance.resets_in))


def _note(state: dict[str, Any], group: LimitGroup, allowance: RateLimitResult) -> None:
    """Keep the headers of the limit that leaves the least; a request may count against several."""
    if allowance.remaining <= state.get("limit_remaining", allowance.remaining):
        state["limit_remaining"] = allowance.remaining
        state["limit_headers"] = _headers(group, allowance)


def _headers(group: LimitGroup, allowance: RateLimitResult) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"ratelimit-policy", f'"{group}";q={allowance.limit};w={allowance.seconds}'.encode()),
        (b"ratelimit", f'"{group}";r={allowance.remaining};t={allowance.resets_in}'.encode()),
    )
