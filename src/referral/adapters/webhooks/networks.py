"""The networks that webhooks may reach: the public internet, and those that the operator allows."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

IPV6_INTERNET = IPv6Network("2000::/3")
"""The range that IANA has allocated for the internet; everything else is special or reserved."""

CACHED_ADDRESSES = 1000
"""A burst of deliveries goes to few addresses, and a check compares with all networks."""

NAT64_PREFIX = IPv6Network("64:ff9b::/96")
"""RFC 6052: hosts without IPv4 reach the IPv4 internet through these addresses."""

SPECIAL_NETWORKS = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared between a provider and its customers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunneling
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
"""IANA's registries of special-purpose and multicast addresses, inside `IPV6_INTERNET` for IPv6.

The attributes of `ipaddress`, such as `is_global`, differ between releases of Python.
"""


class WebhookNetworks:
    """Decides which addresses webhooks may connect to."""

    def __init__(self, allowlist: Iterable[str]) -> None:
        """Take the networks that the operator allows, in CIDR notation."""
        self._allowlist = tuple(ip_network(network, strict=False) for network in allowlist)
        self.is_in_allowlist = lru_cache(CACHED_ADDRESSES)(self._is_in_allowlist)
        self.allows = lru_cache(CACHED_ADDRESSES)(self._allows)

    @property
    def has_allowlist(self) -> bool:
        """Whether the operator allows any network besides the internet."""
        return bool(self._allowlist)

    def _is_in_allowlist(self, address: IpAddress) -> bool:
        """Return whether the operator allows a network of the address, or of its IPv4 one."""
        return any(each in network for each in _equivalents(address) for network in self._allowlist)

    def _allows(self, address: IpAddress) -> bool:
        """Return whether webhooks may connect to the address."""
        return self.is_in_allowlist(address) or all(map(_is_public, _equivalents(address)))


def _equivalents(address: IpAddress) -> tuple[IpAddress, ...]:
    """Return the address, and the IPv4 address that a connection to it reaches, if any.

    Addresses of 6to4 and Teredo contain an IPv4 address too, but are special as a whole.
    """
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return address, address.ipv4_mapped
    if address in NAT64_PREFIX:
        return address, IPv4Address(int(address) & 0xFFFF_FFFF)
    return (address,)


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, IPv6Address) and address not in IPV6_INTERNET:
        return address in NAT64_PREFIX
    return not any(address in network for network in SPECIAL_NETWORKS)
