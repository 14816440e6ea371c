"""The client IP of a request behind trusted proxies."""

import pytest

from referral.web.client_ip import ClientIp, TrustedProxies

PROXY = "198.51.100.7"
PROXIES = TrustedProxies(["198.51.100.0/24", "2001:db8:ffff::/48"])


def client_ip_behind(forwarded: str, peer: str = PROXY) -> ClientIp:
    """Return the client IP of a request that a proxy forwarded."""
    return PROXIES.client_ip(peer, [(b"x-forwarded-for", forwarded.encode())])


@pytest.mark.parametrize(
    ("entry", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:555", "192.0.2.1"),
        ('"192.0.2.1:555"', "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("[2001:db8::1]:555", "2001:db8::/64"),
        ('"[2001:db8::1]:555"', "2001:db8::/64"),
        ('"[2001:db8::1]"', "2001:db8::/64"),
        ("[::ffff:192.0.2.1]:555", "192.0.2.1"),
    ],
)
def test_forwarded_entry_may_have_a_port(entry: str, site: str) -> None:
    """All notations of proxies are parsed, at every position of the list."""
    assert client_ip_behind(entry).site == site
    assert client_ip_behind(f"203.0.113.9:1, {entry}, {PROXY}:80").site == site


@pytest.mark.parametrize(
    "entry",
    ["", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:port", "192.0.2.1:123456", "[192.0.2.1",
     "[]", "[2001:db8::1]x", '"192.0.2.1', "1.2.3.4.5:6", '"' * 40, "[" * 60, "1" * 10_000],
)  # fmt: skip
def test_invalid_entry_counts_as_the_proxy(entry: str) -> None:
    """A client cannot get its own limit with an invalid entry."""
    assert client_ip_behind(f"203.0.113.9, {entry}").site == PROXY


@pytest.mark.parametrize(
    "notation",
    [
        "::ffff:192.0.2.33",
        "::ffff:c000:221",
        "64:ff9b::192.0.2.33",
        "64:ff9b:1::192.0.2.33",
        "64:ff9b:1:fffe::192.0.2.33",
        "64:ff9b:1:c000:2:2100::",
        "2002:c000:221::1",
        "2002:c000:221:ffff::1",
        "2001:0:cb00:7105:8000:63bf:3fff:fdde",
    ],
)
def test_embedded_ipv4_address_counts_as_ipv4(notation: str) -> None:
    """Mapped, NAT64, 6to4 and Teredo addresses are unwrapped."""
    assert PROXIES.client_ip(notation, []) == ClientIp("192.0.2.33", None, trusted=False)
    assert client_ip_behind(notation) == ClientIp("192.0.2.33", None, trusted=False)


def test_embedded_address_of_a_proxy_is_not_trusted() -> None:
    """A transition mechanism could otherwise impersonate a proxy."""
    for stranger in ("2002:c633:6407::1", "64:ff9b::198.51.100.7"):
        assert client_ip_behind("192.0.2.1", stranger) == ClientIp(PROXY, None, trusted=False)
    assert client_ip_behind("192.0.2.1", "::ffff:198.51.100.7").site == "192.0.2.1"
    assert client_ip_behind("192.0.2.1", "2001:db8:ffff::1").site == "192.0.2.1"


def test_ipv6_address_has_a_64_and_a_48() -> None:
    """The last 64 bits and the zone are ignored."""
    expected = ClientIp("2001:db8:1:2::/64", "2001:db8:1::/48", trusted=False)
    for client_ip in ("2001:db8:1:2::", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::1%eth0"):
        assert PROXIES.client_ip(client_ip, []) == expected
    assert PROXIES.client_ip("", []) == ClientIp("", None, trusted=False)


def test_only_the_last_twenty_entries_are_read() -> None:
    """An entry beyond twenty proxies is ignored."""
    assert client_ip_behind("192.0.2.1" + ", 198.51.100.8:1" * 19).site == "192.0.2.1"
    assert client_ip_behind("192.0.2.1" + ", 198.51.100.8:1" * 20).site == "198.51.100.8"
    assert client_ip_behind("," * 30_000).site == PROXY
