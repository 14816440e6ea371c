"""What callers notice of a Redis that is killed, stopped, flushed or full of garbage."""

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
    """A client of a service with a Redis of its own, and limits that count there."""
    shared = msgspec.structs.replace(
        settings, redis_url=own_redis.url, limit_lookup=Rate.parse("100000/minute")
    )
    async with serve(shared) as client:
        yield client


async def state(client: httpx.AsyncClient) -> str:
    """Return what readiness says of Redis; it is ready all the same."""
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    return str(answer.json()["redis"])


async def look_up(client: httpx.AsyncClient, emails: list[str]) -> None:
    """Look codes up one after the other."""
    for email in emails:
        answer = await client.get(f"{API}/codes/lookup", params={"email": email})
        assert answer.status_code in {200, 404}, answer.text


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each question that Redis did not answer was waited for, as the event loop had it."""
    times: list[float] = []
    patiently = redis._wait_for_reply  # noqa: SLF001 - all waiting for Redis is there

    async def note(answer: Awaitable[Any]) -> Any:
        async with measure_thread_time() as waited:
            try:
                return await patiently(answer)
            except (RedisError, OSError, TimeoutError):
                times.append(waited.seconds)
                raise

    monkeypatch.setattr(redis, "_patiently", note)
    return times


A_MOMENT = 0.5

TROUBLE: dict[str, Callable[[RedisProcess], None]] = {
    "killed": lambda server: server.kill(),
    "stopped": lambda server: server.send_signal(signal.SIGSTOP),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_redis_that_is_gone_costs_little(
    client: httpx.AsyncClient,
    own_redis: RedisProcess,
    given_up: list[float],
    trouble: str,
) -> None:
    """No 5xx, no change that fails, one short wait; afterwards Redis is used again."""
    member = await join(client)
    code = await member.issue_code()
    await look_up(client, [member.email, new_email()])
    TROUBLE[trouble](own_redis)
    given_up.clear()
    began = time.monotonic()
    # Of strangers this process remembers nothing yet.
    await look_up(client, [member.email, *(new_email() for _ in range(200))])
    # One look-up waits, and what an earlier one has stored; then the probes, the first at once.
    most = 3 + (time.monotonic() - began) / redis.PROBE_INTERVAL_SECONDS
    assert 1 <= len(given_up) <= most
    assert max(given_up) < A_MOMENT
    assert (await member.request("DELETE", f"/me/codes/{code['id']}")).status_code == 204
    assert await state(client) == "unavailable"
    if trouble == "killed":
        own_redis.start()
    else:
        own_redis.send_signal(signal.SIGCONT)

    async def is_back() -> bool:
        return await state(client) == "ok"

    await wait_for_value(is_back)
    answer = await client.get(f"{API}/codes/lookup", params={"email": member.email})
    assert answer.status_code == 404


async def test_garbage_in_every_key_changes_no_answer(
    client: httpx.AsyncClient, own_redis: RedisProcess
) -> None:
    """Keys flushed, overwritten or of another type: look-ups and limits go on."""
    member = await join(client)
    code = await member.issue_code()
    async with Redis.from_url(own_redis.url) as server:
        for spoil in ("flush", "text", "list"):
            emails = [member.email, *(f"{spoil}{number}@example.com" for number in range(20))]
            await look_up(client, emails)
            for key in await server.keys("*"):
                await server.delete(key)
                if spoil == "text":
                    await server.set(key, b"+\xc1garbage")
                if spoil == "list":
                    await server.rpush(key, "garbage")
            await look_up(client, emails)
            found = await client.get(f"{API}/codes/lookup", params={"email": member.email.upper()})
            assert found.json()["code"] == code["code"]
            assert await state(client) == "ok"
