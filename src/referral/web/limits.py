"""Limits on routes, and whose requests are counted together."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import Scope

from referral.core.errors import TooManyRequests
from referral.core.model import Allowance
from referral.core.ports import Limits
from referral.web.auth import identify

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], object], Awaitable[None]]

IPV6_SITE = 64
"""Whoever has one IPv6 address has all that share so many bits with it."""


class TrustedProxies:
    """The networks whose word on where a request came from is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take them in CIDR notation."""
        self._networks = [ip_network(network, strict=False) for network in networks]
        self.client = lru_cache(maxsize=10_000)(self._client)

    def _client(self, peer: str, forwarded: str) -> str:
        """Return the nearest address that is not a proxy's; those beyond it may be made up."""
        nearest = peer
        hops = [hop.strip() for hop in forwarded.split(",")] if forwarded else []
        while hops and self.trusts(nearest) and _is_address(hops[-1]):
            nearest = hops.pop()
        return _site(nearest)

    def trusts(self, text: str) -> bool:
        """Tell whether an address is in one of them."""
        return _is_address(text) and any(ip_address(text) in each for each in self._networks)


def client_address(scope: Scope) -> str:
    """Return whose request it is, as far as the network tells."""
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    peer = scope["client"]
    sent = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return proxies.client(peer[0] if peer else "", b",".join(sent).decode("latin-1"))


def limited(group: str, *, by_account: bool = False) -> Guard:
    """Make a guard that counts requests by the caller's address, or by account."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
        if by_account:
            caller = await identify(connection)
            who = str(caller.user_id or caller.client_id)
        else:
            who = client_address(connection.scope)
        await count(connection.scope, group, who)

    return guard


async def count(scope: Scope, group: str, who: str) -> None:
    """Count a request, and have its answer say so, or raise `TooManyRequests`."""
    limits: Limits = scope["litestar_app"].state.limits
    allowance = await limits.take(group, who)
    if allowance is None:
        return
    scope["state"]["limit_headers"] = _headers(group, allowance)
    if not allowance.granted:
        raise TooManyRequests(retry_after=timedelta(seconds=allowance.resets_in))


def _headers(group: str, allowance: Allowance) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"ratelimit-policy", f'"{group}";q={allowance.limit};w={allowance.seconds}'.encode()),
        (b"ratelimit", f'"{group}";r={allowance.remaining};t={allowance.resets_in}'.encode()),
    )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _site(text: str) -> str:
    if not _is_address(text):
        return text
    address = ip_address(text)
    if not isinstance(address, IPv6Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((address, IPV6_SITE), strict=False))
