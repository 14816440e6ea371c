"""Requests while Redis is killed, stopped, flushed or filled with garbage."""

import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from referral.adapters.redis import client as redis
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, join, new_email
from tests.support.server_processes import RedisProcess
from tests.support.waiting import measure_thread_time, wait_for_value

pytestmark = pytest.mark.usefixtures("production_timeouts")


@pytest.fixture
async def client(
    serve: ServiceFactory, settings: Settings, own_redis: RedisProcess
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with its own Redis and a rate limit in it."""
    shared = msgspec.structs.replace(
        settings, redis_url=own_redis.url, limit_lookup=Rate.parse("100000/minute")
    )
    async with serve(shared) as client:
        yield client


async def redis_state(client: httpx.AsyncClient) -> str:
    """Return Redis' state in the readiness probe, which succeeds anyway."""
    response = await client.get("/health/ready")
    assert response.status_code == 200
    return str(response.json()["redis"])


async def look_up(client: httpx.AsyncClient, emails: list[str]) -> None:
    """Look codes up one after the other."""
    for email in emails:
        response = await client.get(f"{API}/codes/lookup", params={"email": email})
        assert response.status_code in {200, 404}, response.text


@pytest.fixture
def failed_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The duration of each failed Redis command in seconds, measured in event loop time."""
    times: list[float] = []
    wait = redis._wait_for_reply  # noqa: SLF001 - all waiting for Redis is there

    async def record(reply: Awaitable[Any]) -> Any:
        async with measure_thread_time() as elapsed:
            try:
                return await wait(reply)
            except (RedisError, OSError, TimeoutError):
                times.append(elapsed.seconds)
                raise

    monkeypatch.setattr(redis, "_wait_for_reply", record)
    return times


MAX_WAIT_SECONDS = 0.5

FAULTS: dict[str, Callable[[RedisProcess], None]] = {
    "killed": lambda server: server.kill(),
    "stopped": lambda server: server.send_signal(signal.SIGSTOP),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_redis_outage_costs_one_short_wait(
    client: httpx.AsyncClient,
    own_redis: RedisProcess,
    failed_waits: list[float],
    fault: str,
) -> None:
    """No response is 5xx, changes succeed, and Redis is used again afterwards."""
    member = await join(client)
    code = await member.issue_code()
    await look_up(client, [member.email, new_email()])
    FAULTS[fault](own_redis)
    failed_waits.clear()
    began = time.monotonic()
    # The cache holds nothing for new e-mails.
    await look_up(client, [member.email, *(new_email() for _ in range(200))])
    # One look-up, one write of an earlier look-up, and the probes: the first starts at once.
    limit = 3 + (time.monotonic() - began) / redis.PROBE_INTERVAL_SECONDS
    assert 1 <= len(failed_waits) <= limit
    assert max(failed_waits) < MAX_WAIT_SECONDS
    assert (await member.request("DELETE", f"/me/codes/{code['id']}")).status_code == 204
    assert await redis_state(client) == "unavailable"
    if fault == "killed":
        own_redis.start()
    else:
        own_redis.send_signal(signal.SIGCONT)

    async def is_back() -> bool:
        return await redis_state(client) == "ok"

    await wait_for_value(is_back)
    response = await client.get(f"{API}/codes/lookup", params={"email": member.email})
    assert response.status_code == 404


async def test_garbage_in_redis_changes_no_response(
    client: httpx.AsyncClient, own_redis: RedisProcess
) -> None:
    """Look-ups and rate limits work with keys deleted, overwritten or of another type."""
    member = await join(client)
    code = await member.issue_code()
    async with Redis.from_url(own_redis.url) as server:
        for garbage in ("flush", "text", "list"):
            emails = [member.email, *(f"{garbage}{number}@example.com" for number in range(20))]
            await look_up(client, emails)
            for key in await server.keys("*"):
                await server.delete(key)
                if garbage == "text":
                    await server.set(key, b"+\xc1garbage")
                if garbage == "list":
                    await server.rpush(key, "garbage")
            await look_up(client, emails)
            found = await client.get(f"{API}/codes/lookup", params={"email": member.email.upper()})
            assert found.json()["code"] == code["code"]
            assert await redis_state(client) == "ok"
