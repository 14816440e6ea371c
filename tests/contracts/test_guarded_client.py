"""The guarded client of a third party: its circuit breaker and its budget."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from referral.adapters.redis.client import RedisClient
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.third_parties.guarded_client import (
    FAILURE_THRESHOLD,
    PROBE_INTERVAL_SECONDS,
    RATE_BUDGET,
    Breaker,
    GuardedClient,
    rate_budget,
)
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until

SHORT_TIMEOUT, LONG_TIMEOUT = timedelta(seconds=0.05), timedelta(seconds=20)
WITH_BUDGET = dict.fromkeys(RateLimitGroup, UNLIMITED) | RATE_BUDGET
MAX_PER_SECOND, MAX_PER_MINUTE = 10, 300
HOUR_SECONDS, MARGIN_SECONDS = 3600, 60
HOURLY_BUDGET = WITH_BUDGET | {
    group: Rate(rate.limit, rate.window * HOUR_SECONDS) for group, rate in RATE_BUDGET.items()
}
"""The budget with windows that are 3,600 times as long."""


class FakeThirdParty:
    """A third party that responds with 200, fails or hangs, and records the requests."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.requests: list[str] = []

    async def send(self, email: str, time_limit: float) -> HttpResponse:  # noqa: ARG002 - the port has it
        self.requests.append(email)
        if self.failure == "hang":
            await asyncio.Event().wait()
        if self.failure:
            raise InvalidResponse(self.failure)
        return HttpResponse(200, None)


async def no_budget() -> bool:
    """Allow every request."""
    return True


@pytest.fixture
def service() -> FakeThirdParty:
    """A third party that responds."""
    return FakeThirdParty()


@pytest.fixture
async def client(service: FakeThirdParty) -> AsyncIterator[GuardedClient[int]]:
    """A client without a budget."""
    client = GuardedClient(
        "it", service.send, lambda http_response: http_response.status, no_budget
    )
    yield client
    await client.close()


async def fail(client: GuardedClient[int], times: int) -> None:
    """Send failing requests."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            await client.request("ann@example.com", SHORT_TIMEOUT)


def fail_at_once(client: GuardedClient[int]) -> None:
    """Send a failing request that fails without yielding to the event loop."""
    with pytest.raises(Unavailable):
        client.request("ann@example.com", SHORT_TIMEOUT).send(None)


@pytest.mark.parametrize("failure", ["status 500", "hang"])
async def test_breaker_opens_after_consecutive_failures(
    client: GuardedClient[int],
    service: FakeThirdParty,
    failure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No request is sent, and no caller waits, until the next probe."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", math.inf
    )
    service.failure = failure
    await fail(client, FAILURE_THRESHOLD)
    for _ in range(200):
        fail_at_once(client)
    await asyncio.sleep(0)
    assert len(service.requests) == FAILURE_THRESHOLD


async def test_success_resets_the_failure_count(
    client: GuardedClient[int], service: FakeThirdParty
) -> None:
    """Only consecutive failures count."""
    for _ in range(3):
        service.failure = "status 500"
        await fail(client, FAILURE_THRESHOLD - 1)
        service.failure = None
        assert await client.request("ann@example.com", SHORT_TIMEOUT) == 200


async def test_each_timeout_has_its_own_breaker(
    client: GuardedClient[int], service: FakeThirdParty
) -> None:
    """A longer timeout may get responses where a shorter one does not."""
    service.failure = "hang"
    await fail(client, FAILURE_THRESHOLD)
    service.failure = None
    assert await client.request("ann@example.com", 2 * SHORT_TIMEOUT) == 200
    await fail(client, 1)


async def test_successful_probe_closes_the_breaker(
    client: GuardedClient[int], service: FakeThirdParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe runs in the background, so that no caller waits for it."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", 0.0
    )
    service.failure = "hang"
    await fail(client, FAILURE_THRESHOLD)
    fail_at_once(client)
    await wait_until(lambda: len(service.requests) == FAILURE_THRESHOLD + 1)
    service.failure = None
    fail_at_once(client)
    await wait_until(lambda: len(service.requests) == FAILURE_THRESHOLD + 2)
    assert await client.request("ann@example.com", SHORT_TIMEOUT) == 200


def test_one_probe_per_retry_interval() -> None:
    """The first caller after the interval gets it."""
    now = [0.0]
    breaker = Breaker("it", lambda: now[0])
    for _ in range(FAILURE_THRESHOLD):
        breaker.record_failure("status 500")
    assert not breaker.acquire_probe()
    for _ in range(2):
        now[0] += PROBE_INTERVAL_SECONDS
        assert [breaker.acquire_probe(), breaker.acquire_probe()] == [True, False]
    breaker.record_success()
    assert not breaker.is_open


async def test_close_cancels_probes(
    service: FakeThirdParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task is left running."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", 0.0
    )
    client = GuardedClient(
        "it", service.send, lambda http_response: http_response.status, no_budget
    )
    service.failure = "hang"
    await fail(client, FAILURE_THRESHOLD + 1)
    before = len(asyncio.all_tasks())
    await client.close()
    assert len(asyncio.all_tasks()) == before - 1


def max_in_window(sent: list[tuple[float, float]], seconds: float) -> int:
    """Return the maximum of requests that were certainly sent within one window."""
    return max(
        sum(started_at <= one and ended_at < started_at + seconds for one, ended_at in sent)
        for started_at, _ in sent
    )


@pytest.mark.parametrize("processes", [1, 3])
async def test_processes_share_the_budget(
    service: FakeThirdParty, redis_url: str, processes: int
) -> None:
    """All processes together send as many requests per window as the rate allows."""
    servers = [RedisClient(redis_url) for _ in range(processes)]
    now = time.time()
    limits = [
        FixedWindowRateLimiter(HOURLY_BUDGET, server, 1, now=lambda: now) for server in servers
    ]
    budgets = [rate_budget(each, f"third-{processes}") for each in limits]
    clients = [
        GuardedClient("it", service.send, lambda http_response: http_response.status, budget)
        for budget in budgets
    ]
    sent = []
    for _ in range(7):
        service.requests.clear()
        requests = [
            client.request("ann@example.com", LONG_TIMEOUT) for client in clients for _ in range(20)
        ]
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert all(result == 200 or isinstance(result, Unavailable) for result in results)
        assert results.count(200) == len(service.requests)
        sent.append(len(service.requests))
        async for key in servers[0].redis.scan_iter(f"*{RateLimitGroup.THIRD_PARTY_BURST}:*"):
            assert 0 < await servers[0].redis.ttl(key) <= HOUR_SECONDS
            await servers[0].redis.delete(key)
        now += HOUR_SECONDS + MARGIN_SECONDS
    assert sent == [5, 5, 5, 5, 5, 2, 0]
    for server in servers:
        await server.close()


@pytest.mark.parametrize("first_pause", [0.01, 0.9, 5.5])
async def test_budget_is_kept_without_redis(service: FakeThirdParty, first_pause: float) -> None:
    """No minute exceeds the quota; a request over the budget is no failure of the service."""
    now = 0.0
    limits = FixedWindowRateLimiter(WITH_BUDGET, None, 1, now=lambda: now)
    client = GuardedClient(
        "it", service.send, lambda http_response: http_response.status, rate_budget(limits, "it")
    )
    sent_at: list[float] = []
    while now < 70:
        with suppress(Unavailable):
            assert await client.request("ann@example.com", LONG_TIMEOUT) == 200
            sent_at.append(now)
        now += 0.01 if now else first_pause
    assert len(sent_at) == len(service.requests)
    for seconds, max_requests in ((1, MAX_PER_SECOND), (60, MAX_PER_MINUTE)):
        sent_in_window = max_in_window([(at, at) for at in sent_at], seconds)
        assert max_requests / 2 <= sent_in_window <= max_requests
