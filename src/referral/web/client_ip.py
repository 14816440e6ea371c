"""The client IP of a request: IPv4 or IPv6, also behind trusted proxies."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice
from typing import NamedTuple

IPV6_SITE_BITS = 64
"""The prefix that a rate limit counts: a subscriber has at least one /64 (RFC 6177)."""

IPV6_NETWORK_BITS = 48
"""The largest prefix that a subscriber usually has (RFC 6177)."""

NAT64_PREFIX = ip_network("64:ff9b::/96")
LOCAL_NAT64_PREFIX = ip_network("64:ff9b:1::/48")
LOCAL_NAT64_SUFFIX_BITS = 40

IP_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}")

MAX_IP_CHARACTERS = 64
"""Longer texts, with port and quotes, are not parsed and not cached."""

MAX_FORWARDED_HOPS = 20
"""The maximum number of entries of `X-Forwarded-For` that are parsed, the last ones first."""


class ClientIp(NamedTuple):
    """An IP address: the site by which requests are counted (IPv4, or an IPv6 /64), the network
    around it (IPv6 /48), and whether it is a trusted proxy.
    """

    site: str
    network: str | None
    trusted: bool


class TrustedProxies:
    """The networks of proxies whose `X-Forwarded-For` is trusted."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Take the networks in CIDR notation."""
        self._networks = [ip_network(network, strict=False) for network in networks]
        self._cached_parse = lru_cache(maxsize=10_000)(self._parse)

    def client_ip(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> ClientIp:
        """Return the last hop that is not a trusted proxy; clients can forge earlier hops."""
        nearest = self._cached_parse(peer)
        if nearest is None:
            return ClientIp(peer, None, trusted=False)
        if nearest.trusted:
            for text in islice(forwarded_hops(headers), MAX_FORWARDED_HOPS):
                hop = self._cached_parse(text) if len(text) <= MAX_IP_CHARACTERS else None
                if hop is None:
                    break
                nearest = hop
                if not hop.trusted:
                    break
        return nearest

    def trusts(self, text: str) -> bool:
        """Return whether an IP address is in one of the networks."""
        parsed = self._parse(text)
        return parsed is not None and parsed.trusted

    def _parse(self, text: str) -> ClientIp | None:
        address = parse_ip(text)
        if address is None:
            return None
        trusted = any(address in network for network in self._networks)
        client = _embedded_ipv4(address) or address
        if isinstance(client, IPv4Address):
            return ClientIp(str(client), None, trusted)
        site, network = (ip_network((int(client), bits), strict=False) for bits in IPV6_PREFIX_BITS)
        return ClientIp(str(site), str(network), trusted)


IPV6_PREFIX_BITS = (IPV6_SITE_BITS, IPV6_NETWORK_BITS)


def forwarded_hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """Yield the entries of `X-Forwarded-For` without ports, the last one first."""
    values = [value for name, value in headers if name == b"x-forwarded-for"]
    entries = b",".join(values).decode("latin-1")
    end = len(entries) if values else -1
    while end >= 0:
        begin = entries.rfind(",", 0, end)
        yield _without_port(entries[begin + 1 : end].strip())
        end = begin


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address; return None if it is invalid, and an IPv4-mapped address as IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(entry: str) -> str:
    """Return the address of `192.0.2.1:555`, `[2001:db8::1]:555` or either in quotes."""
    if len(entry) > MAX_IP_CHARACTERS:
        return entry
    unquoted = entry[1:-1] if entry[:1] == entry[-1:] == '"' else entry
    match = IP_WITH_PORT.fullmatch(unquoted)
    return match[1] or match[2] if match else unquoted


def _embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address of a transition mechanism contains, if any.

    Otherwise each spelling of one IPv4 address would have a rate limit of its own. 6to4 is
    RFC 3056, Teredo RFC 4380 (the client, not the server), NAT64 RFC 6052 and RFC 8215.
    """
    if isinstance(address, IPv4Address):
        return address
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in NAT64_PREFIX:
        return _last_32_bits(int(address))
    return _ipv4_of_local_nat64(int(address)) if address in LOCAL_NAT64_PREFIX else None


def _ipv4_of_local_nat64(number: int) -> IPv4Address:
    """Decode an RFC 6052 address with a prefix of 96 bits, or of 48, which ends in zeros."""
    if number % (1 << LOCAL_NAT64_SUFFIX_BITS):
        return _last_32_bits(number)
    upper, lower = number >> 64 & 0xFFFF, number >> LOCAL_NAT64_SUFFIX_BITS & 0xFFFF
    return IPv4Address(upper << 16 | lower)


def _last_32_bits(number: int) -> IPv4Address:
    return IPv4Address(number & 0xFFFF_FFFF)
