"""Servers as they run in production: two processes of their own over one database and one Redis."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TypeVar

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from referral.adapters.redis.rate_limits import PROCESSES_KEY
from tests.conftest import execute
from tests.support.api_client import API, join, log_in, new_email, register
from tests.support.server_processes import RedisProcess
from tests.support.service_process import Service, running_service
from tests.support.waiting import wait_for_value

T = TypeVar("T")

LIMIT, REQUESTS = 50, 1000
CALLERS = 200
LOGINS = 450
"""More than may wait for a hash."""

CROWD_SIZE = 10
MAX_TRIES = 5

COUNT_READS_SQL = """
ALTER TABLE codes RENAME TO stored_codes;
CREATE SEQUENCE asked;
CREATE VIEW codes AS SELECT * FROM stored_codes WHERE nextval('asked') > 0
"""
"""From then on every read of the one code that there is counts."""


@pytest.fixture
def services(
    database_url: str, key_file: Path, tmp_path: Path, own_redis: RedisProcess
) -> Iterator[list[Service]]:
    """Two servers that believe a proxy on this machine."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_service(
                    tmp_path / name,
                    database_url=database_url,
                    signing_key_file=str(key_file),
                    redis_url=own_redis.url,
                    email_verification="off",
                    worker="off",
                    limit_lookup=f"{LIMIT}/hour",
                    trusted_proxies="127.0.0.0/8",
                )
            )
            for name in ("one", "two")
        ]


@pytest.fixture
async def crowds(services: list[Service]) -> AsyncIterator[list[list[httpx.AsyncClient]]]:
    """Clients of each: a single one with so many connections spends seconds on finding a free one,
    and the server does not wait that long for what a connection has to say.
    """
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=LOGINS // CROWD_SIZE)
        yield [
            [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=service.url, limits=limits, timeout=300)
                )
                for _ in range(CROWD_SIZE)
            ]
            for service in services
        ]


@pytest.fixture
def clients(crowds: list[list[httpx.AsyncClient]]) -> list[httpx.AsyncClient]:
    """A client of each."""
    return [crowd[0] for crowd in crowds]


async def look_up(client: httpx.AsyncClient, email: str, who: str) -> int:
    """Look an address up as if from another one, and return the status."""
    headers = {"X-Forwarded-For": who}
    answer = await client.get(f"{API}/codes/lookup", params={"email": email}, headers=headers)
    return answer.status_code


def caller(number: int) -> str:
    """Return an address that no other number has, and that is counted apart from all others."""
    return f"2001:db8:{number:x}::1"


async def burst(clients: list[httpx.AsyncClient], requests: int, who: str) -> Counter[int]:
    """Ask all at once, by turns; return how many got which status."""
    asked = [
        look_up(clients[number % len(clients)], "nobody@example.com", who)
        for number in range(requests)
    ]
    return Counter(await asyncio.gather(*asked))


def warnings(services: list[Service]) -> list[str]:
    """Return what the servers found worth a warning."""
    lines = [line for service in services for line in service.log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event["event"] for event in events if event["level"] in {"warning", "error"}]


async def while_redis_answers(
    services: list[Service], clients: list[httpx.AsyncClient], work: Callable[[], Awaitable[T]]
) -> T:
    """Return what comes of work during which no server took Redis for gone.

    A machine that is too busy to run Redis may bring that about now and then, and the servers
    themselves, were it their doing, each time.
    """

    async def are_ready() -> bool:
        states = [(await client.get("/health/ready")).json()["redis"] for client in clients]
        return set(states) == {"ok"}

    for _ in range(MAX_TRIES):
        await wait_for_value(are_ready)
        before = warnings(services)
        result = await work()
        if warnings(services) == before:
            return result
    pytest.fail(f"Redis was taken for gone each time: {warnings(services)}")


async def test_fifty_of_a_thousand_pass(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
) -> None:
    """Exactly as many as the limit says, and such a burst is not taken for Redis being gone."""
    everyone = [client for pair in zip(*crowds, strict=True) for client in pair]
    callers = map(caller, itertools.count())

    async def ask() -> Counter[int]:
        return await burst(everyone, REQUESTS, next(callers))

    passed = await while_redis_answers(services, clients, ask)
    assert passed == {404: LIMIT, 429: REQUESTS - LIMIT}


async def test_without_redis_each_allows_its_share(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
    own_redis: RedisProcess,
) -> None:
    """Once they know of each other and Redis is gone, together they allow the limit, and no 5xx."""
    await burst(clients[1:], 1, "192.0.2.9")
    began, callers = time.time(), map(caller, itertools.count())
    async with Redis.from_url(own_redis.url) as redis:

        async def know_of_each_other() -> bool:
            await burst(clients, 2, next(callers))
            return await redis.zcount(PROCESSES_KEY, began, "inf") == len(clients)

        await wait_for_value(know_of_each_other, seconds=60)
    own_redis.kill()
    for crowd in crowds:
        assert await burst(crowd, 200, "192.0.2.2") == {404: LIMIT // 2, 429: 200 - LIMIT // 2}
    assert "redis does not answer" in warnings(services)


async def test_look_ups_go_on_during_a_flood_of_logins(
    crowds: list[list[httpx.AsyncClient]],
) -> None:
    """More guesses than may wait: each is refused, none fails, and look-ups are answered."""
    crowd, owner = crowds[0], new_email()
    client = crowd[0]
    await register(client, owner)
    seen, callers, refused = Counter[int](), map(caller, itertools.count()), Counter[int]()
    for _ in range(MAX_TRIES):
        guesses = [
            log_in(crowd[number % CROWD_SIZE], owner, f"a wrong guess {number}")
            for number in range(LOGINS)
        ]
        flood = asyncio.gather(*guesses)
        while not flood.done():
            seen[await look_up(client, owner, next(callers))] += 1
        refused.update(answer.status_code for answer in await flood)
        # Where the crowd itself was held up, not so many waited at the same time.
        if refused[503]:
            break
    assert set(seen) == {404}
    assert set(refused) <= {400, 429, 503}
    assert refused[400] > 0
    assert refused[503] > 0


async def test_a_hot_address_that_expires_is_asked_for_once_a_process(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
    database_url: str,
    own_redis: RedisProcess,
) -> None:
    """Hundreds ask while what was remembered is lost: each process reads the database once."""
    ann = await join(crowds[0][0])
    await ann.issue_code()
    await execute(database_url, COUNT_READS_SQL)
    connection = await asyncpg.connect(database_url)
    callers = map(caller, itertools.count())

    async def ask() -> set[int]:
        asked = [
            look_up(crowd[number % CROWD_SIZE], ann.email, next(callers))
            for number in range(CALLERS)
            for crowd in crowds
        ]
        return set(await asyncio.gather(*asked))

    async def reads() -> int:
        return int(await connection.fetchval("SELECT last_value FROM asked"))

    async def lose_and_ask() -> int:
        assert await ask() == {200}
        before = await reads()
        async with Redis.from_url(own_redis.url) as redis:
            await redis.flushall()

        async def was_read() -> bool:
            assert await ask() == {200}
            return await reads() > before

        await wait_for_value(was_read)
        assert await ask() == {200}
        return await reads() - before

    assert await while_redis_answers(services, clients, lose_and_ask) <= len(crowds)
    await connection.close()
