"""Rate limits by client IP, network and account, and the login throttle."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import msgspec
import pytest
from asgi_lifespan import LifespanManager

from referral.app import create_app
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from referral.web.client_ip import TrustedProxies
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, join, log_in, new_email, register

LOOKUP = f"{API}/codes/lookup?email=nobody@example.com"


TOKEN = "unknown token"
RESET_FORM = {"token": TOKEN, "new_password": PASSWORD}
PUBLIC_REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", f"{API}/auth/email/confirm"): {"json": {"token": TOKEN}},
    ("POST", f"{API}/auth/password/forgot"): {"json": {"email": "nobody@example.com"}},
    ("POST", f"{API}/auth/password/reset"): {"json": RESET_FORM},
    ("POST", f"{API}/auth/register"): {"json": {}},
    ("POST", f"{API}/auth/token"): {"data": {}},
    ("POST", "/confirm"): {"data": {"token": TOKEN}},
    ("POST", "/reset"): {"data": RESET_FORM},
}
WRONG_PASSWORD = "a wrong guess"
SIGNED_IN_REQUESTS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", f"{API}/auth/email/verification"): {},
    ("POST", f"{API}/me/codes/active/email"): {},
    ("PUT", f"{API}/me/password"): {
        "json": {"current_password": WRONG_PASSWORD, "new_password": PASSWORD}
    },
    ("DELETE", f"{API}/me"): {"json": {"password": WRONG_PASSWORD}},
}
"""A request for every route that hashes a password or sends an e-mail."""


async def send(client: httpx.AsyncClient, method: str, path: str, **rest: Any) -> httpx.Response:
    """Send the sample request of a route."""
    return await client.request(
        method, path, **(PUBLIC_REQUESTS | SIGNED_IN_REQUESTS)[method, path], **rest
    )


@asynccontextmanager
async def running_service(settings: Settings, **changes: Any) -> AsyncIterator[LifespanManager]:
    """Run a service whose clients have different client IPs."""
    app = cast("Any", create_app(msgspec.structs.replace(settings, **changes)))
    async with LifespanManager(app) as running:
        yield running


def client_from(running: LifespanManager, client_ip: str) -> httpx.AsyncClient:
    """Return a client with this IP."""
    transport = httpx.ASGITransport(running.app, client=(client_ip, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


async def send_at_once(clients: list[httpx.AsyncClient], requests: int) -> Counter[int]:
    """Send requests concurrently; return the number of responses by status."""
    sent = [clients[number % len(clients)].get(LOOKUP) for number in range(requests)]
    return Counter(response.status_code for response in await asyncio.gather(*sent))


async def test_responses_have_rate_limit_headers(serve: ServiceFactory, settings: Settings) -> None:
    """Every response has policy and remainder; a 429 also has Retry-After."""
    async with serve(
        msgspec.structs.replace(settings, limit_lookup=Rate.parse("2/minute"))
    ) as client:
        first, second, third = [await client.get(LOOKUP) for _ in range(3)]
    assert first.headers["RateLimit-Policy"] == '"lookup";q=2;w=60'
    assert first.headers["RateLimit"].startswith('"lookup";r=1;t=')
    assert second.headers["RateLimit"].startswith('"lookup";r=0;t=')
    assert third.status_code == 429
    assert third.json()["type"].endswith("/problems/too-many-requests")
    assert third.headers["Content-Type"] == "application/problem+json"
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert third.headers["RateLimit"].startswith('"lookup";r=0;t=')


async def test_limit_can_be_switched_off(serve: ServiceFactory, settings: Settings) -> None:
    """With `off` there is no limit and no header."""
    async with serve(msgspec.structs.replace(settings, limit_lookup=Rate.parse("off"))) as client:
        responses = [await client.get(LOOKUP) for _ in range(200)]
    assert {response.status_code for response in responses} == {404}
    assert "RateLimit" not in responses[-1].headers


@pytest.mark.parametrize(
    ("path", "setting"),
    [("/auth/register", "limit_register"), ("/auth/token", "limit_token")],
)
async def test_each_group_has_its_own_limit(
    serve: ServiceFactory, settings: Settings, path: str, setting: str
) -> None:
    """Registrations and logins count even if they are invalid."""
    limited = msgspec.structs.replace(settings, **{setting: Rate.parse("1/minute")})
    async with serve(limited) as client:
        responses = [await client.post(f"{API}{path}") for _ in range(2)]
        assert responses[0].status_code != 429
        assert responses[1].status_code == 429
        assert (await client.get(LOOKUP)).status_code == 404


async def test_forwarded_ip_counts_only_from_a_trusted_proxy(settings: Settings) -> None:
    """X-Forwarded-For from another peer changes nothing."""
    changes = {"limit_lookup": Rate.parse("5/minute"), "trusted_proxies": ("198.51.100.0/24",)}
    async with running_service(settings, **changes) as running:
        for peer, allowed in (("192.0.2.9", 5), ("198.51.100.7", 20)):
            client, statuses = client_from(running, peer), Counter[int]()
            for number in range(20):
                headers = {"X-Forwarded-For": f"203.0.113.{number}"}
                statuses[(await client.get(LOOKUP, headers=headers)).status_code] += 1
            assert statuses[404] == allowed
        behind, statuses = client_from(running, "198.51.100.7"), Counter[int]()
        for number in range(20):
            headers = {"X-Forwarded-For": f"203.0.113.{number}, 192.0.2.77, 198.51.100.8"}
            statuses[(await behind.get(LOOKUP, headers=headers)).status_code] += 1
        assert statuses[404] == 5


async def test_ipv4_mapped_address_of_a_proxy_is_trusted(settings: Settings) -> None:
    """On an IPv6 socket the peer's IPv4 address is written as `::ffff:a.b.c.d`."""
    changes = {"limit_lookup": Rate.parse("5/minute"), "trusted_proxies": ("198.51.100.0/24",)}
    async with running_service(settings, **changes) as running:
        client, statuses = client_from(running, "::ffff:198.51.100.7"), Counter[int]()
        for number in range(20):
            headers = {"X-Forwarded-For": f"::ffff:203.0.113.{number}"}
            statuses[(await client.get(LOOKUP, headers=headers)).status_code] += 1
        assert statuses == {404: 20}
        headers = {"X-Forwarded-For": "203.0.113.0"}
        remainder = (await client.get(LOOKUP, headers=headers)).headers["RateLimit"]
        assert remainder.startswith('"lookup";r=3;')


@pytest.mark.parametrize("peer", ["192.0.2.9", "198.51.100.7"])
async def test_long_forwarded_headers_are_not_kept_in_memory(peer: str) -> None:
    """Long headers leave no memory behind, from a stranger or from a proxy."""
    proxies = TrustedProxies(["198.51.100.0/24"])
    tracemalloc.start()
    try:
        for number in range(1_000):
            hop = f"{number}{'x' * 30_000}".encode()
            proxies.client_ip(peer, [(b"x-forwarded-for", hop + b", " + hop)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
    headers = [
        (b"x-forwarded-for", b"203.0.113.5, " + b"198.51.100.8, " * 10_000 + b"198.51.100.9")
    ]
    assert proxies.client_ip(peer, headers).site == (
        peer if peer == "192.0.2.9" else "198.51.100.8"
    )


@pytest.mark.parametrize(("method", "path"), SIGNED_IN_REQUESTS)
async def test_password_routes_are_limited_by_account(
    settings: Settings, method: str, path: str
) -> None:
    """A stolen token allows no more guesses, whatever the client IP."""
    async with running_service(settings, limit_token=Rate.parse("5/minute")) as running:
        ann = await join(client_from(running, "192.0.2.1"))
        limited = []
        for number in range(7):
            client = client_from(running, f"203.0.113.{number}")
            response = await send(client, method, path, headers=ann.headers)
            limited.append(response.status_code == 429)
    assert limited == [False] * 5 + [True] * 2
    assert response.headers["RateLimit-Policy"] == '"token";q=5;w=60'


@pytest.mark.parametrize(("method", "path"), [*PUBLIC_REQUESTS, *SIGNED_IN_REQUESTS])
async def test_password_and_mail_routes_are_limited_by_client_ip(
    settings: Settings, method: str, path: str
) -> None:
    """The limit holds across accounts and does not affect other client IPs."""
    async with running_service(settings, limit_token=Rate.parse("3/minute")) as running:
        members = [await join(client_from(running, f"192.0.2.{number}")) for number in range(4)]
        one, other = client_from(running, "203.0.113.1"), client_from(running, "203.0.113.2")
        responses = [await send(one, method, path, headers=ann.headers) for ann in members]
        other_response = await send(other, method, path, headers=members[0].headers)
    assert [response.status_code == 429 for response in responses] == [False] * 3 + [True]
    assert responses[0].headers["RateLimit"].startswith('"token";r=2;t=')
    assert responses[3].headers["RateLimit"].startswith('"token";r=0;t=')
    assert responses[3].headers["RateLimit-Policy"] == '"token";q=3;w=60'
    assert 1 <= int(responses[3].headers["Retry-After"]) <= 60
    media_type = (
        "application/problem+json" if path.startswith("/api") else "text/html; charset=utf-8"
    )
    assert responses[3].headers["Content-Type"] == media_type
    assert other_response.status_code != 429


async def test_new_codes_are_limited_by_account(settings: Settings) -> None:
    """Code texts are never reused, so their number is limited; rejected requests count too."""
    async with running_service(settings, limit_codes=Rate.parse("3/hour")) as running:
        ann, bob = [await join(client_from(running, "192.0.2.1")) for _ in range(2)]
        body = {"lifetime_minutes": 60, "activate": False}
        responses = [await ann.request("POST", "/me/codes", json=body) for _ in range(4)]
        other_response = await bob.request("POST", "/me/codes", json=body)
        codes = (await ann.request("GET", "/me/codes")).json()["items"]
    assert [response.status_code for response in responses] == [201, 201, 201, 429]
    assert responses[0].headers["RateLimit-Policy"] == '"codes";q=3;w=3600'
    assert 1 <= int(responses[3].headers["Retry-After"]) <= 3600
    assert (other_response.status_code, len(codes)) == (201, 3)


async def test_share_links_share_the_limit_of_look_ups(settings: Settings) -> None:
    """Share links, validity and look-up all tell whether a code is valid."""
    async with running_service(settings, limit_lookup=Rate.parse("3/minute")) as running:
        client = client_from(running, "192.0.2.1")
        paths = ["/r/NONE", f"{API}/codes/NONE/validity", "/r/NONE", "/r/NONE", LOOKUP]
        responses = [await client.get(path) for path in paths]
    assert [response.status_code for response in responses] == [302, 200, 302, 429, 429]
    assert responses[0].headers["RateLimit-Policy"] == '"lookup";q=3;w=60'


async def test_ipv6_48_has_ten_times_the_limit_of_a_64(settings: Settings) -> None:
    """The networks of a subscriber share a limit, and the header names the limit that was hit."""
    async with running_service(settings, limit_lookup=Rate.parse("5/minute")) as running:
        clients = [client_from(running, f"2001:db8:7:{number:x}::1") for number in range(60)]
        assert await send_at_once(clients, 60) == {404: 50, 429: 10}
        rejected = await client_from(running, "2001:db8:7:ffff::1").get(LOOKUP)
        assert rejected.headers["RateLimit-Policy"] == '"lookup-network";q=50;w=60'
        assert (await send_at_once([client_from(running, "2001:db8:8::1")], 1)) == {404: 1}


async def test_ipv6_64_counts_as_one_client(settings: Settings) -> None:
    """A /64 has the limit of one IPv4 address."""
    async with running_service(settings, limit_lookup=Rate.parse("5/minute")) as running:
        clients = [client_from(running, f"2001:db8::{number:x}") for number in range(1, 21)]
        assert (await send_at_once(clients, 20))[404] == 5
        assert (await send_at_once([client_from(running, "2001:db8:0:1::1")], 1))[404] == 1


async def test_owner_can_log_in_during_password_guessing(settings: Settings) -> None:
    """The login throttle stops guesses from many IPs, but not the first try of a new IP."""
    async with running_service(settings, limit_token=Rate.parse("5/minute")) as running:
        email = new_email()
        assert (await register(client_from(running, "192.0.2.1"), email)).status_code == 201
        statuses = Counter[int]()
        for number in range(40):
            guesser = client_from(running, f"203.0.113.{number % 8}")
            statuses[(await log_in(guesser, email, "a wrong guess")).status_code] += 1
        # Five guesses until the throttle, and the first one of each other client IP.
        assert statuses == {400: 8, 429: 32}
        owner = await log_in(client_from(running, "192.0.2.2"), email, PASSWORD)
        assert owner.status_code == 200
