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
from referral.settings import Settings
from referral.web.limits import TrustedProxies
from tests.conftest import Serve
from tests.journey import API, PASSWORD, join, log_in, new_email, register

LOOKUP = f"{API}/codes/lookup?email=nobody@example.com"


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[LifespanManager]:
    """Run a service that is asked from several addresses."""
    app = cast("Any", create_app(msgspec.structs.replace(settings, **changes)))
    async with LifespanManager(app) as running:
        yield running


def client_at(running: LifespanManager, address: str) -> httpx.AsyncClient:
    """Return a client that connects from an address."""
    transport = httpx.ASGITransport(running.app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


async def burst(clients: list[httpx.AsyncClient], requests: int) -> Counter[int]:
    """Send all at once; return how many got which status."""
    asked = [clients[number % len(clients)].get(LOOKUP) for number in range(requests)]
    return Counter(answer.status_code for answer in await asyncio.gather(*asked))


async def test_a_limited_answer_says_where_one_stands(serve: Serve, settings: Settings) -> None:
    """Every answer names the policy and what is left; a refusal also when to come again."""
    async with serve(msgspec.structs.replace(settings, limit_lookup="2/minute")) as client:
        first, second, third = [await client.get(LOOKUP) for _ in range(3)]
    assert first.headers["RateLimit-Policy"] == '"lookup";q=2;w=60'
    assert first.headers["RateLimit"].startswith('"lookup";r=1;t=')
    assert second.headers["RateLimit"].startswith('"lookup";r=0;t=')
    assert third.status_code == 429
    assert third.json()["type"].endswith("/problems/too-many-requests")
    assert third.headers["Content-Type"] == "application/problem+json"
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert third.headers["RateLimit"].startswith('"lookup";r=0;t=')


async def test_a_limit_can_be_off(serve: Serve, settings: Settings) -> None:
    """With `off` nothing is counted and no header says so."""
    async with serve(msgspec.structs.replace(settings, limit_lookup="off")) as client:
        answers = [await client.get(LOOKUP) for _ in range(200)]
    assert {answer.status_code for answer in answers} == {404}
    assert "RateLimit" not in answers[-1].headers


@pytest.mark.parametrize(
    ("path", "setting"),
    [("/auth/register", "limit_register"), ("/auth/token", "limit_token")],
)
async def test_each_group_has_its_limit(
    serve: Serve, settings: Settings, path: str, setting: str
) -> None:
    """Registrations and log-ins are counted as well, whatever they contain."""
    limited = msgspec.structs.replace(settings, **{setting: "1/minute"})
    async with serve(limited) as client:
        answers = [await client.post(f"{API}{path}") for _ in range(2)]
        assert answers[0].status_code != 429
        assert answers[1].status_code == 429
        assert (await client.get(LOOKUP)).status_code == 404


async def test_a_forwarded_address_counts_from_a_listed_proxy_only(settings: Settings) -> None:
    """A rotating X-Forwarded-For changes nothing, unless a proxy of ours wrote it."""
    changes = {"limit_lookup": "5/minute", "trusted_proxies": ("198.51.100.0/24",)}
    async with serving(settings, **changes) as running:
        for peer, passing in (("192.0.2.9", 5), ("198.51.100.7", 20)):
            client, seen = client_at(running, peer), Counter[int]()
            for number in range(20):
                hops = {"X-Forwarded-For": f"203.0.113.{number}"}
                seen[(await client.get(LOOKUP, headers=hops)).status_code] += 1
            assert seen[404] == passing
        behind, seen = client_at(running, "198.51.100.7"), Counter[int]()
        for number in range(20):
            hops = {"X-Forwarded-For": f"203.0.113.{number}, 192.0.2.77, 198.51.100.8"}
            seen[(await behind.get(LOOKUP, headers=hops)).status_code] += 1
        assert seen[404] == 5


async def test_a_proxy_that_comes_by_a_socket_of_ipv6_is_the_same_proxy(settings: Settings) -> None:
    """Where the service listens on `::`, addresses of IPv4 have another spelling."""
    changes = {"limit_lookup": "5/minute", "trusted_proxies": ("198.51.100.0/24",)}
    async with serving(settings, **changes) as running:
        client, seen = client_at(running, "::ffff:198.51.100.7"), Counter[int]()
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
            proxies.client(peer, [(b"x-forwarded-for", hop + b", " + hop)])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
    far = [(b"x-forwarded-for", b"203.0.113.5, " + b"198.51.100.8, " * 10_000 + b"198.51.100.9")]
    assert proxies.client(peer, far) == (peer if peer == "192.0.2.9" else "198.51.100.8")


@pytest.mark.parametrize("path", ["/me", "/me/password"])
async def test_a_stolen_token_allows_no_more_guesses_than_the_front_door(
    serve: Serve, settings: Settings, path: str
) -> None:
    """Where the password is asked for again, guesses count by account."""
    async with serve(msgspec.structs.replace(settings, limit_token="5/minute")) as client:  # noqa: S106
        ann = await join(client)
        method, body = (
            ("DELETE", {"password": "a wrong guess"})
            if path == "/me"
            else ("PUT", {"current_password": "a wrong guess", "new_password": "battery staple"})
        )
        seen = [(await ann.request(method, path, json=body)).status_code for _ in range(7)]
    assert seen == [422] * 5 + [429] * 2


async def test_a_network_of_ipv6_counts_as_one(settings: Settings) -> None:
    """Whoever owns a /64 has no more than anybody else."""
    async with serving(settings, limit_lookup="5/minute") as running:
        clients = [client_at(running, f"2001:db8::{number:x}") for number in range(1, 21)]
        assert (await burst(clients, 20))[404] == 5
        assert (await burst([client_at(running, "2001:db8:0:1::1")], 1))[404] == 1


async def test_the_owner_gets_in_while_others_guess(settings: Settings) -> None:
    """Guessing from many addresses is slowed down; the owner's first try elsewhere succeeds."""
    async with serving(settings, limit_token="5/minute") as running:  # noqa: S106 - a limit
        email = new_email()
        assert (await register(client_at(running, "192.0.2.1"), email)).status_code == 201
        seen = Counter[int]()
        for number in range(40):
            guesser = client_at(running, f"203.0.113.{number % 8}")
            seen[(await log_in(guesser, email, "a wrong guess")).status_code] += 1
        # Five until the account is guarded, and the first try of each of the other addresses.
        assert seen == {400: 8, 429: 32}
        owner = await log_in(client_at(running, "192.0.2.2"), email, PASSWORD)
        assert owner.status_code == 200
