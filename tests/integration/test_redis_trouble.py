"""What callers notice of a Redis that is killed, stopped, flushed or full of garbage."""

import signal
import time
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from referral.core.limits import Rate
from referral.settings import Settings
from tests.conftest import Serve
from tests.journey import API, join
from tests.servers import OwnRedis
from tests.waiting import until_found


@pytest.fixture
async def client(
    serve: Serve, settings: Settings, own_redis: OwnRedis
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with a Redis of its own, and limits that count there."""
    shared = msgspec.structs.replace(
        settings, redis_url=own_redis.url, limit_lookup=Rate.read("100000/minute")
    )
    async with serve(shared) as client:
        yield client


async def state(client: httpx.AsyncClient) -> str:
    """Return what readiness says of Redis; it is ready all the same."""
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    return str(answer.json()["redis"])


async def waits(client: httpx.AsyncClient, emails: list[str]) -> list[float]:
    """Look codes up one after the other; return how long each took, in seconds, sorted."""
    found = []
    for email in emails:
        began = time.perf_counter()
        answer = await client.get(f"{API}/codes/lookup", params={"email": email})
        found.append(time.perf_counter() - began)
        assert answer.status_code in {200, 404}, answer.text
    return sorted(found)


FEW = 6
"""Of 101 look-ups, so that the 95th percentile is compared."""

GIVEN_UP = 1.0

TROUBLE: dict[str, Callable[[OwnRedis], None]] = {
    "killed": lambda redis: redis.kill(),
    "stopped": lambda redis: redis.send(signal.SIGSTOP),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_redis_that_is_gone_costs_little(
    client: httpx.AsyncClient, own_redis: OwnRedis, trouble: str
) -> None:
    """No 5xx, no change that fails, one short wait; afterwards Redis is used again."""
    member = await join(client)
    code = await member.issue()
    strangers = [f"nobody{number}@example.com" for number in range(100)]
    emails = [member.email, *strangers]
    idle = await waits(client, emails)
    TROUBLE[trouble](own_redis)
    for _ in range(2):
        found = await waits(client, emails)
        # A few may be slow for what else the machine does; none waits for a client's time-out.
        assert found[-FEW] < idle[-FEW] + 0.1
        assert found[-1] < GIVEN_UP
    assert (await member.request("DELETE", f"/me/codes/{code['id']}")).status_code == 204
    assert await state(client) == "unavailable"
    if trouble == "killed":
        own_redis.start()
    else:
        own_redis.send(signal.SIGCONT)

    async def is_back() -> bool:
        return await state(client) == "ok"

    await until_found(is_back, 5)
    answer = await client.get(f"{API}/codes/lookup", params={"email": member.email})
    assert answer.status_code == 404


async def test_garbage_in_every_key_changes_no_answer(
    client: httpx.AsyncClient, own_redis: OwnRedis
) -> None:
    """Keys flushed, overwritten or of another type: look-ups and limits go on."""
    member = await join(client)
    code = await member.issue()
    async with Redis.from_url(own_redis.url) as redis:
        for spoil in ("flush", "text", "list"):
            emails = [member.email, *(f"{spoil}{number}@example.com" for number in range(20))]
            await waits(client, emails)
            for key in await redis.keys("*"):
                await redis.delete(key)
                if spoil == "text":
                    await redis.set(key, b"+\xc1garbage")
                if spoil == "list":
                    await redis.rpush(key, "garbage")
            await waits(client, emails)
            found = await client.get(f"{API}/codes/lookup", params={"email": member.email.upper()})
            assert found.json()["code"] == code["code"]
            assert await state(client) == "ok"
