"""Which network address a request counts for."""

import pytest

from referral.web.client_ip import ClientIp, TrustedProxies

PROXY = "198.51.100.7"
PROXIES = TrustedProxies(["198.51.100.0/24", "2001:db8:ffff::/48"])


def client_ip_behind(forwarded: str, peer: str = PROXY) -> ClientIp:
    """Return whom a request counts for that a proxy passed on."""
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
def test_a_proxy_may_append_the_port(entry: str, site: str) -> None:
    """In each form that proxies write it, at each place of the list."""
    assert client_ip_behind(entry).site == site
    assert client_ip_behind(f"203.0.113.9:1, {entry}, {PROXY}:80").site == site


@pytest.mark.parametrize(
    "entry",
    ["", "unknown", "_hidden", "192.0.2.1:", "192.0.2.1:port", "192.0.2.1:123456", "[192.0.2.1",
     "[]", "[2001:db8::1]x", '"192.0.2.1', "1.2.3.4.5:6", '"' * 40, "[" * 60, "1" * 10_000],
)  # fmt: skip
def test_what_is_no_address_counts_for_the_proxy_that_sent_it(entry: str) -> None:
    """Nobody gets a limit of their own by writing nonsense."""
    assert client_ip_behind(f"203.0.113.9, {entry}").site == PROXY


@pytest.mark.parametrize(
    "form",
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
def test_an_ipv4_address_inside_an_ipv6_one_counts_as_itself(form: str) -> None:
    """Mapped, NAT64 in both prefixes, 6to4 and Teredo; from a socket and from a proxy."""
    assert PROXIES.client_ip(form, []) == ClientIp("192.0.2.33", None, trusted=False)
    assert client_ip_behind(form) == ClientIp("192.0.2.33", None, trusted=False)


def test_an_address_is_trusted_for_what_it_is_and_not_for_what_it_stands_for() -> None:
    """A transition mechanism could otherwise lend a stranger the address of a proxy."""
    for stranger in ("2002:c633:6407::1", "64:ff9b::198.51.100.7"):
        assert client_ip_behind("192.0.2.1", stranger) == ClientIp(PROXY, None, trusted=False)
    assert client_ip_behind("192.0.2.1", "::ffff:198.51.100.7").site == "192.0.2.1"
    assert client_ip_behind("192.0.2.1", "2001:db8:ffff::1").site == "192.0.2.1"


def test_an_ipv6_address_has_a_site_and_a_network() -> None:
    """Whatever stands in its last bits, its zone included."""
    expected = ClientIp("2001:db8:1:2::/64", "2001:db8:1::/48", trusted=False)
    for address in ("2001:db8:1:2::", "2001:DB8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::1%eth0"):
        assert PROXIES.client_ip(address, []) == expected
    assert PROXIES.client_ip("", []) == ClientIp("", None, trusted=False)


def test_only_the_nearest_entries_are_read() -> None:
    """However many there are: an address behind twenty proxies is not looked for."""
    assert client_ip_behind("192.0.2.1" + ", 198.51.100.8:1" * 19).site == "192.0.2.1"
    assert client_ip_behind("192.0.2.1" + ", 198.51.100.8:1" * 20).site == "198.51.100.8"
    assert client_ip_behind("," * 30_000).site == PROXY
