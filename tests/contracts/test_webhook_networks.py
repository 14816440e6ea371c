"""Addresses and URLs that webhooks may have."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from referral.adapters.webhooks.networks import IpAddress, WebhookNetworks
from referral.adapters.webhooks.urls import WebhookUrlPolicy, parse_webhook_url
from referral.core.errors import InvalidRequest

IANA_SPECIAL_IPV4 = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
192.0.0.0/29 192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24
192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15
198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32
"""
IANA_SPECIAL_IPV6 = """
::1/128 ::/128 ::/96 ::ffff:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32
2001:1::1/128 2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28
2001:20::/28 2001:30::/28 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7
fe80::/10 fec0::/10 ff00::/8
"""
SPECIAL = (IANA_SPECIAL_IPV4 + IANA_SPECIAL_IPV6).split()
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:2800:21f:cb07::1", "2a00:1450:4001::1"]
INTERNET = WebhookNetworks(())
HIDDEN_LOOPBACK = [
    "::ffff:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "::127.0.0.1",
]
FORBIDDEN_HOSTS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "127.0.0.01",
    "127.0.0.0x1",
    "0",
    "00",
    "0x",
    "1.2.3.4.5",
    "256.1.1.1",
    "10.0.0.1",
    "169.254.169.254",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "\uff11\uff12\uff17.0.0.1",  # fullwidth digits
    "127。0。0。1",
    "ⓛocalhost",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:8.8.8.8]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[::1",
    "::1",
    "[1.2.3.4]",
    "[v1.x]",
    "a..example",
    ".example",
    "-a.example",
    "a" * 64 + ".example",
    "",
]
INVALID_URLS = [
    "ftp://shop.example/",
    "//shop.example/",
    "shop.example",
    "https:shop.example",
    "https:///hook",
    "https://user@shop.example/",
    "https://user:password@shop.example/",
    "https://@shop.example/",
    "https://shop.example@127.0.0.1/",
    "https://shop.example\\@127.0.0.1/",
    "https://127.0.0.1\\.shop.example/",
    "https://shop.example:0/",
    "https://shop.example:65536/",
    "https://shop.example:-1/",
    "https://shop.example:x/",
    "https://shop.example:/",
    "https://shop.example:443:443/",
    "https://shop.example/a b",
    "https://shop.example/a\r\nX-Injected: 1",
    "https://shop.example/\n",
    "https://shop.example\n",
    " https://shop.example/",
    "https://shop.example/\0",
    "https://shop.example/ü",
    "https://shop.example/#fragment",
    "https://shop.example/" + "a" * 2028,
]


@pytest.mark.parametrize("network", SPECIAL)
def test_special_networks_are_forbidden(network: str) -> None:
    """No webhook reaches an address of IANA's special or multicast networks."""
    special = ip_network(network)
    assert not INTERNET.allows(special[0])
    assert not INTERNET.allows(special[-1])


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    """Addresses of the internet are allowed, and need no allowlist."""
    assert INTERNET.allows(ip_address(text))
    assert not INTERNET.is_in_allowlist(ip_address(text))


@given(st.ip_addresses())
def test_what_python_calls_special_is_forbidden(address: IpAddress) -> None:
    """Whatever `ipaddress` knows to be special is forbidden, on each release of Python."""
    is_special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and address not in ip_network("64:ff9b::/96"))
    )
    assert not (is_special and INTERNET.allows(address))


@given(st.ip_addresses(v=4))
def test_nat64_counts_as_the_ipv4_address(address: IpAddress) -> None:
    """An address of NAT64 is allowed if and only if the IPv4 address inside is."""
    nat64 = ip_address(int(ip_address("64:ff9b::")) | int(address))
    assert INTERNET.allows(nat64) == INTERNET.allows(address)


@pytest.mark.parametrize("text", HIDDEN_LOOPBACK)
def test_ipv4_inside_ipv6_is_no_way_around(text: str) -> None:
    """Addresses that contain a forbidden IPv4 address are forbidden."""
    assert not INTERNET.allows(ip_address(text))


def test_named_networks_are_allowed() -> None:
    """A network that the operator allows is allowed, in the mapped spelling too; others are not."""
    networks = WebhookNetworks(["10.1.2.3/16", "fd00::/8"])
    for text in ("10.1.255.1", "::ffff:10.1.0.1", "64:ff9b::10.1.0.1", "fd00::1"):
        assert networks.is_in_allowlist(ip_address(text))
        assert networks.allows(ip_address(text))
    for text in ("10.2.0.1", "::ffff:10.2.0.1", "127.0.0.1", "fc00::1"):
        assert not networks.allows(ip_address(text))


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_forbidden_hosts_are_rejected(host: str) -> None:
    """A forbidden address is rejected in any spelling, also one that not all parsers know."""
    for url in (f"https://{host}/", f"https://{host}:8443/hook?x=1"):
        with pytest.raises(InvalidRequest) as raised:
            WebhookUrlPolicy(INTERNET).check(url)
        assert raised.value.field == "url"


@pytest.mark.parametrize("url", INVALID_URLS)
def test_invalid_urls_are_rejected(url: str) -> None:
    """Other schemes, users, bad ports, line ends and long URLs are rejected."""
    with pytest.raises(InvalidRequest):
        WebhookUrlPolicy(WebhookNetworks(["0.0.0.0/0", "::/0"])).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example",
        "https://shop.example./hook",
        "https://xn--bcher-kva.example/hook",
        "HTTPS://Shop.Example:8443/a/b?c=%20&d=e|f",
        "https://shop.example?token=1",
        "https://my_service.internal/",
        "https://8.8.8.8/",
        "https://[2606:2800:21f:cb07::1]:444/",
        "https://[64:ff9b::8.8.8.8]/",
        "https://0xa.example/",
    ],
)
def test_public_urls_are_accepted(url: str) -> None:
    """Names and public addresses are accepted; names are looked up at the delivery only."""
    WebhookUrlPolicy(INTERNET).check(url)


@pytest.mark.parametrize("url", ["http://shop.example/", "http://8.8.8.8/"])
def test_http_needs_a_named_network(url: str) -> None:
    """http:// is rejected, unless the operator allows networks and the address is in one."""
    with pytest.raises(InvalidRequest, match="https://"):
        WebhookUrlPolicy(INTERNET).check(url)
    WebhookUrlPolicy(WebhookNetworks(["8.8.8.0/24"])).check(url)
    with pytest.raises(InvalidRequest):
        WebhookUrlPolicy(WebhookNetworks(["10.0.0.0/8"])).check("http://8.8.8.8/")


def test_parts_of_a_url() -> None:
    """The target keeps its bytes, and the host header has the port only if it is not the usual."""
    url = parse_webhook_url("HTTPS://Shop.Example:8443/A%2fb?x=%0a")
    assert (url.host, url.port, url.target) == ("shop.example", 8443, "/A%2fb?x=%0a")
    assert url.authority == "shop.example:8443"
    assert parse_webhook_url("https://shop.example:443?x").authority == "shop.example"
    assert parse_webhook_url("https://shop.example:443?x").target == "/?x"
