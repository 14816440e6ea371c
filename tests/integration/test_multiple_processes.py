"""Two server processes that share one database and one Redis."""

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
"""More than the hash queue holds."""

CROWD_SIZE = 10
MAX_TRIES = 5

COUNT_READS_SQL = """
ALTER TABLE codes RENAME TO stored_codes;
CREATE SEQUENCE code_reads;
CREATE VIEW codes AS SELECT * FROM stored_codes WHERE nextval('code_reads') > 0
"""
"""Counts every read of the only code."""


@pytest.fixture
def services(
    database_url: str, key_file: Path, tmp_path: Path, own_redis: RedisProcess
) -> Iterator[list[Service]]:
    """Two servers that trust a proxy on this machine."""
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
    """Ten clients for each server: a single one would be slow with so many connections."""
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
    """One client for each server."""
    return [crowd[0] for crowd in crowds]


async def look_up(client: httpx.AsyncClient, email: str, client_ip: str) -> int:
    """Look an e-mail up from a client IP; return the status."""
    headers = {"X-Forwarded-For": client_ip}
    response = await client.get(f"{API}/codes/lookup", params={"email": email}, headers=headers)
    return response.status_code


def caller(number: int) -> str:
    """Return a client IP that shares no limit with other numbers."""
    return f"2001:db8:{number:x}::1"


async def send_at_once(
    clients: list[httpx.AsyncClient], requests: int, client_ip: str
) -> Counter[int]:
    """Send look-ups to the servers in turn, concurrently; return the responses by status."""
    sent = [
        look_up(clients[number % len(clients)], "nobody@example.com", client_ip)
        for number in range(requests)
    ]
    return Counter(await asyncio.gather(*sent))


def warnings(services: list[Service]) -> list[str]:
    """Return the warnings and errors of the servers' logs."""
    lines = [line for service in services for line in service.log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return [event["event"] for event in events if event["level"] in {"warning", "error"}]


async def while_redis_answers(
    services: list[Service], clients: list[httpx.AsyncClient], work: Callable[[], Awaitable[T]]
) -> T:
    """Repeat the work until no server opened its breaker for Redis, and return the result.

    A busy machine may delay Redis now and then; a fault of the servers would do so each time.
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


async def test_rate_limit_is_exact_across_processes(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
) -> None:
    """Of 1,000 concurrent requests exactly 50 pass, and the load opens no breaker."""
    all_clients = [client for pair in zip(*crowds, strict=True) for client in pair]
    callers = map(caller, itertools.count())

    async def send() -> Counter[int]:
        return await send_at_once(all_clients, REQUESTS, next(callers))

    passed = await while_redis_answers(services, clients, send)
    assert passed == {404: LIMIT, 429: REQUESTS - LIMIT}


async def test_each_process_allows_its_share_without_redis(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
    own_redis: RedisProcess,
) -> None:
    """When Redis is gone each process allows half of the limit, and no response is 5xx."""
    await send_at_once(clients[1:], 1, "192.0.2.9")
    began, callers = time.time(), map(caller, itertools.count())
    async with Redis.from_url(own_redis.url) as redis:

        async def are_registered() -> bool:
            await send_at_once(clients, 2, next(callers))
            return await redis.zcount(PROCESSES_KEY, began, "inf") == len(clients)

        await wait_for_value(are_registered, seconds=60)
    own_redis.kill()
    for crowd in crowds:
        assert await send_at_once(crowd, 200, "192.0.2.2") == {
            404: LIMIT // 2,
            429: 200 - LIMIT // 2,
        }
    assert "redis does not answer" in warnings(services)


async def test_lookups_work_during_a_flood_of_logins(
    crowds: list[list[httpx.AsyncClient]],
) -> None:
    """Logins beyond the hash queue get 503, and look-ups are answered."""
    crowd, owner = crowds[0], new_email()
    client = crowd[0]
    await register(client, owner)
    lookups, callers, logins = Counter[int](), map(caller, itertools.count()), Counter[int]()
    for _ in range(MAX_TRIES):
        guesses = [
            log_in(crowd[number % CROWD_SIZE], owner, f"a wrong guess {number}")
            for number in range(LOGINS)
        ]
        flood = asyncio.gather(*guesses)
        while not flood.done():
            lookups[await look_up(client, owner, next(callers))] += 1
        logins.update(response.status_code for response in await flood)
        # If the clients themselves were slow, the hash queue was not full.
        if logins[503]:
            break
    assert set(lookups) == {404}
    assert set(logins) <= {400, 429, 503}
    assert logins[400] > 0
    assert logins[503] > 0


async def test_expired_hot_lookup_costs_one_query_per_process(
    crowds: list[list[httpx.AsyncClient]],
    clients: list[httpx.AsyncClient],
    services: list[Service],
    database_url: str,
    own_redis: RedisProcess,
) -> None:
    """Hundreds of concurrent look-ups after the loss of the cache share one query."""
    ann = await join(crowds[0][0])
    await ann.issue_code()
    await execute(database_url, COUNT_READS_SQL)
    connection = await asyncpg.connect(database_url)
    callers = map(caller, itertools.count())

    async def look_up_at_once() -> set[int]:
        sent = [
            look_up(crowd[number % CROWD_SIZE], ann.email, next(callers))
            for number in range(CALLERS)
            for crowd in crowds
        ]
        return set(await asyncio.gather(*sent))

    async def count_reads() -> int:
        return int(await connection.fetchval("SELECT last_value FROM code_reads"))

    async def flush_and_look_up() -> int:
        assert await look_up_at_once() == {200}
        before = await count_reads()
        async with Redis.from_url(own_redis.url) as redis:
            await redis.flushall()

        async def was_read() -> bool:
            assert await look_up_at_once() == {200}
            return await count_reads() > before

        await wait_for_value(was_read)
        assert await look_up_at_once() == {200}
        return await count_reads() - before

    assert await while_redis_answers(services, clients, flush_and_look_up) <= len(crowds)
    await connection.close()
