"""Limits on routes, and whose requests are counted together."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple

from litestar.connection import ASGIConnection
from litestar.types import Scope

from referral.core.errors import TooManyRequests
from referral.core.model import Allowance
from referral.core.ports import Limits
from referral.web.auth import identify

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], object], Awaitable[None]]

IPV6_SITE = 64
"""Whoever has one IPv6 address has all that share so many bits with it."""

MAX_ADDRESS = 64
"""No address is longer, as text; what a process remembers of hops stays as short."""

MAX_HOPS = 20
"""How many proxies a request may pass before those who sent it are no longer told apart."""


class Hop(NamedTuple):
    """Where a request came by: whom it counts for, and whether its word is taken."""

    site: str
    trusted: bool


class TrustedProxies:
    """The networks whose word on where a request came from is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take them in CIDR notation."""
        self._networks = [ip_network(network, strict=False) for network in networks]
        self._remembered = lru_cache(maxsize=10_000)(self._hop)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the nearest address that is not a proxy's; those beyond it may be made up."""
        nearest = self._remembered(peer)
        if nearest is None:
            return peer
        if nearest.trusted:
            for text in hops_before(headers):
                hop = self._remembered(text) if len(text) <= MAX_ADDRESS else None
                if hop is None:
                    break
                nearest = hop
                if not hop.trusted:
                    break
        return nearest.site

    def trusts(self, text: str) -> bool:
        """Tell whether an address is in one of them."""
        hop = self._hop(text)
        return hop is not None and hop.trusted

    def _hop(self, text: str) -> Hop | None:
        address = read_address(text)
        if address is None:
            return None
        trusted = any(address in network for network in self._networks)
        if isinstance(address, IPv6Address):
            return Hop(str(ip_network((address, IPV6_SITE), strict=False)), trusted)
        return Hop(str(address), trusted)


def hops_before(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return what `X-Forwarded-For` says, the nearest first, and no more than so many."""
    sent = b",".join(value for name, value in headers if name == b"x-forwarded-for")
    if not sent:
        return []
    nearest = sent.decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    return [hop.strip() for hop in reversed(nearest)]


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address, or None; one of IPv4 as such, though it came by a socket of IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def client_address(scope: Scope) -> str:
    """Return whose request it is, as far as the network tells."""
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    peer = scope["client"]
    return proxies.client(peer[0] if peer else "", scope["headers"])


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
