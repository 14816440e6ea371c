"""Limits: for all processes together, by where a request comes from, and on guessing."""

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


TOKEN = "no token of ours"
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
"""Every route that hashes a password or sends a mail, and a request of it."""


async def send(client: httpx.AsyncClient, method: str, path: str, **rest: Any) -> httpx.Response:
    """Ask one of these routes."""
    return await client.request(
        method, path, **(PUBLIC_REQUESTS | SIGNED_IN_REQUESTS)[method, path], **rest
    )


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[LifespanManager]:
    """Run a service that is asked from several addresses."""
    app = cast("Any", create_app(msgspec.structs.replace(settings, **changes)))
    async with LifespanManager(app) as running:
        yield running


def client_from(running: LifespanManager, address: str) -> httpx.AsyncClient:
    """Return a client that connects from an address."""
    transport = httpx.ASGITransport(running.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


async def send_at_once(clients: list[httpx.AsyncClient], requests: int) -> Counter[int]:
    """Send all at once; return how many got which status."""
    asked = [clients[number % len(clients)].get(LOOKUP) for number in range(requests)]
    return Counter(answer.status_code for answer in await asyncio.gather(*asked))


async def test_a_limited_answer_says_where_one_stands(
    serve: ServiceFactory, settings: Settings
) -> None:
    """Every answer names the policy and what is left; a refusal also when to come again."""
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


async def test_a_limit_can_be_off(serve: ServiceFactory, settings: Settings) -> None:
    """With `off` nothing is counted and no header says so."""
    async with serve(msgspec.structs.replace(settings, limit_lookup=Rate.parse("off"))) as client:
        answers = [await client.get(LOOKUP) for _ in range(200)]
    assert {answer.status_code for answer in answers} == {404}
    assert "RateLimit" not in answers[-1].headers


@pytest.mark.parametrize(
    ("path", "setting"),
    [("/auth/register", "limit_register"), ("/auth/token", "limit_token")],
)
async def test_each_group_has_its_limit(
    serve: ServiceFactory, settings: Settings, path: str, setting: str
) -> None:
    """Registrations and log-ins are counted as well, whatever they contain."""
    limited = msgspec.structs.replace(settings, **{setting: Rate.parse("1/minute")})
    async with serve(limited) as client:
        answers = [await client.post(f"{API}{path}") for _ in range(2)]
        assert answers[0].status_code != 429
        assert answers[1].status_code == 429
        assert (await client.get(LOOKUP)).status_code == 404


async def test_a_forwarded_address_counts_from_a_listed_proxy_only(settings: Settings) -> None:
    """A rotating X-Forwarded-For changes nothing, unless a proxy of ours wrote it."""
    changes = {"limit_lookup": Rate.parse("5/minute"), "trusted_proxies": ("198.51.100.0/24",)}
    async with serving(settings, **changes) as running:
        for peer, passing in (("192.0.2.9", 5), ("198.51.100.7", 20)):
            client, seen = client_from(running, peer), Counter[int]()
            for number in range(20):
                hops = {"X-Forwarded-For": f"203.0.113.{number}"}
                seen[(await client.get(LOOKUP, headers=hops)).status_code] += 1
            assert seen[404] == passing
        behind, seen = client_from(running, "198.51.100.7"), Counter[int]()
        for number in range(20):
            hops = {"X-Forwarded-For": f"203.0.113.{number}, 192.0.2.77, 198.51.100.8"}
            seen[(await behind.get(LOOKUP, headers=hops)).status_code] += 1
        assert seen[404] == 5


async def test_a_proxy_that_comes_by_a_socket_of_ipv6_is_the_same_proxy(settings: Settings) -> None:
    """Where the service listens on `::`, addresses of IPv4 have another spelling."""
    changes = {"limit_lookup": Rate.parse("5/minute"), "trusted_proxies": ("198.51.100.0/24",)}
    async with serving(settings, **changes) as running:
        client, seen = client_from(running, "::ffff:198.51.100.7"), Counter[int]()
        for number in range(20):
            hops = {"X-Forwarded-For": f"::ffff:203.0.113.{number}"}
            seen[(await client.get(LOOKUP, headers=hops)).status_code] += 1
        assert seen == {404: 20}
        hops = {"X-Forwarded-For": "203.0.113.0"}
        rest = (await client.get(LOOKUP, headers=hops)).headers["RateLimit"]
        assert rest.startswith('"lookup";r=3;')


@pytest.mark.parametrize("peer", ["192.0.2.9", "198.51.100.7"])
async def test_long_headers_of_proxies_are_not_kept(peer: str) -> None:
    """Neither those of strangers nor those that a proxy passes on."""
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
    far = [(b"x-forwarded-for", b"203.0.113.5, " + b"198.51.100.8, " * 10_000 + b"198.51.100.9")]
    assert proxies.client_ip(peer, far).site == (peer if peer == "192.0.2.9" else "198.51.100.8")


@pytest.mark.parametrize(("method", "path"), SIGNED_IN_REQUESTS)
async def test_a_stolen_token_allows_no_more_guesses_than_the_front_door(
    settings: Settings, method: str, path: str
) -> None:
    """What hashes a password or sends a mail counts by account, from wherever it is asked for."""
    async with serving(settings, limit_token=Rate.parse("5/minute")) as running:
        ann = await join(client_from(running, "192.0.2.1"))
        seen = []
        for number in range(7):
            elsewhere = client_from(running, f"203.0.113.{number}")
            answer = await send(elsewhere, method, path, headers=ann.headers)
            seen.append(answer.status_code == 429)
    assert seen == [False] * 5 + [True] * 2
    assert answer.headers["RateLimit-Policy"] == '"token";q=5;w=60'


@pytest.mark.parametrize(("method", "path"), [*PUBLIC_REQUESTS, *SIGNED_IN_REQUESTS])
async def test_what_hashes_a_password_or_sends_a_mail_counts_by_address(
    settings: Settings, method: str, path: str
) -> None:
    """With accounts as different as there may be; other addresses are not concerned."""
    async with serving(settings, limit_token=Rate.parse("3/minute")) as running:
        members = [await join(client_from(running, f"192.0.2.{number}")) for number in range(4)]
        one, other = client_from(running, "203.0.113.1"), client_from(running, "203.0.113.2")
        seen = [await send(one, method, path, headers=ann.headers) for ann in members]
        elsewhere = await send(other, method, path, headers=members[0].headers)
    assert [answer.status_code == 429 for answer in seen] == [False] * 3 + [True]
    assert seen[0].headers["RateLimit"].startswith('"token";r=2;t=')
    assert seen[3].headers["RateLimit"].startswith('"token";r=0;t=')
    assert seen[3].headers["RateLimit-Policy"] == '"token";q=3;w=60'
    assert 1 <= int(seen[3].headers["Retry-After"]) <= 60
    kind = "application/problem+json" if path.startswith("/api") else "text/html; charset=utf-8"
    assert seen[3].headers["Content-Type"] == kind
    assert elsewhere.status_code != 429


async def test_new_codes_count_by_account(settings: Settings) -> None:
    """Their texts are never free again; refused ones count too, another account does not."""
    async with serving(settings, limit_codes=Rate.parse("3/hour")) as running:
        ann, bob = [await join(client_from(running, "192.0.2.1")) for _ in range(2)]
        body = {"lifetime_minutes": 60, "activate": False}
        seen = [await ann.request("POST", "/me/codes", json=body) for _ in range(4)]
        others = await bob.request("POST", "/me/codes", json=body)
        kept = (await ann.request("GET", "/me/codes")).json()["items"]
    assert [answer.status_code for answer in seen] == [201, 201, 201, 429]
    assert seen[0].headers["RateLimit-Policy"] == '"codes";q=3;w=3600'
    assert 1 <= int(seen[3].headers["Retry-After"]) <= 3600
    assert (others.status_code, len(kept)) == (201, 3)


async def test_share_links_count_with_the_look_ups(settings: Settings) -> None:
    """All of them tell whether a code is good."""
    async with serving(settings, limit_lookup=Rate.parse("3/minute")) as running:
        client = client_from(running, "192.0.2.1")
        paths = ["/r/NONE", f"{API}/codes/NONE/validity", "/r/NONE", "/r/NONE", LOOKUP]
        seen = [await client.get(path) for path in paths]
    assert [answer.status_code for answer in seen] == [302, 200, 302, 429, 429]
    assert seen[0].headers["RateLimit-Policy"] == '"lookup";q=3;w=60'


async def test_many_networks_of_one_subscriber_count_together(settings: Settings) -> None:
    """Ten times as much for a /48 as for a /64; and the answer names the limit that was met."""
    async with serving(settings, limit_lookup=Rate.parse("5/minute")) as running:
        clients = [client_from(running, f"2001:db8:7:{number:x}::1") for number in range(60)]
        assert await send_at_once(clients, 60) == {404: 50, 429: 10}
        refused = await client_from(running, "2001:db8:7:ffff::1").get(LOOKUP)
        assert refused.headers["RateLimit-Policy"] == '"lookup-network";q=50;w=60'
        assert (await send_at_once([client_from(running, "2001:db8:8::1")], 1)) == {404: 1}


async def test_a_network_of_ipv6_counts_as_one(settings: Settings) -> None:
    """Whoever owns a /64 has no more than anybody else."""
    async with serving(settings, limit_lookup=Rate.parse("5/minute")) as running:
        clients = [client_from(running, f"2001:db8::{number:x}") for number in range(1, 21)]
        assert (await send_at_once(clients, 20))[404] == 5
        assert (await send_at_once([client_from(running, "2001:db8:0:1::1")], 1))[404] == 1


async def test_the_owner_gets_in_while_others_guess(settings: Settings) -> None:
    """Guessing from many addresses is slowed down; the owner's first try elsewhere succeeds."""
    async with serving(settings, limit_token=Rate.parse("5/minute")) as running:
        email = new_email()
        assert (await register(client_from(running, "192.0.2.1"), email)).status_code == 201
        seen = Counter[int]()
        for number in range(40):
            guesser = client_from(running, f"203.0.113.{number % 8}")
            seen[(await log_in(guesser, email, "a wrong guess")).status_code] += 1
        # Five until the account is guarded, and the first try of each of the other addresses.
        assert seen == {400: 8, 429: 32}
        owner = await log_in(client_from(running, "192.0.2.2"), email, PASSWORD)
        assert owner.status_code == 200
