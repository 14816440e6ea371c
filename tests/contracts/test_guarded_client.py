"""Keeping to a budget, and away from a service that does not answer."""

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
"""The same with hours in place of seconds."""


class FakeThirdParty:
    """A third party that answers with 200, or not in time, and remembers what it was asked."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.requests: list[str] = []

    async def send(self, mailbox: str, within: float) -> HttpResponse:  # noqa: ARG002 - as the port has it
        self.requests.append(mailbox)
        if self.failure == "hang":
            await asyncio.Event().wait()
        if self.failure:
            raise InvalidResponse(self.failure)
        return HttpResponse(200, None)


async def no_budget() -> bool:
    """Have room."""
    return True


@pytest.fixture
def service() -> FakeThirdParty:
    """A service that answers."""
    return FakeThirdParty()


@pytest.fixture
async def inquiries(service: FakeThirdParty) -> AsyncIterator[GuardedClient[int]]:
    """Questions to it that have no budget."""
    inquiries = GuardedClient("it", service.send, lambda reply: reply.status, no_budget)
    yield inquiries
    await inquiries.close()


async def fail(inquiries: GuardedClient[int], times: int) -> None:
    """Ask in vain."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            await inquiries.request("ann@example.com", SHORT_TIMEOUT)


def fail_at_once(inquiries: GuardedClient[int]) -> None:
    """Ask in vain, and without a turn of the event loop, so that there is nothing to wait for."""
    with pytest.raises(Unavailable):
        inquiries.request("ann@example.com", SHORT_TIMEOUT).send(None)


@pytest.mark.parametrize("fault", ["status 500", "hang"])
async def test_breaker_opens_after_consecutive_failures(
    inquiries: GuardedClient[int],
    service: FakeThirdParty,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No request is sent, and no caller waits, until the next probe."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", math.inf
    )
    service.failure = fault
    await fail(inquiries, FAILURE_THRESHOLD)
    for _ in range(200):
        fail_at_once(inquiries)
    await asyncio.sleep(0)
    assert len(service.requests) == FAILURE_THRESHOLD


async def test_success_resets_the_failure_count(
    inquiries: GuardedClient[int], service: FakeThirdParty
) -> None:
    """Only consecutive failures count."""
    for _ in range(3):
        service.failure = "status 500"
        await fail(inquiries, FAILURE_THRESHOLD - 1)
        service.failure = None
        assert await inquiries.request("ann@example.com", SHORT_TIMEOUT) == 200


async def test_each_timeout_has_its_own_breaker(
    inquiries: GuardedClient[int], service: FakeThirdParty
) -> None:
    """A longer timeout may get responses where a shorter one does not."""
    service.failure = "hang"
    await fail(inquiries, FAILURE_THRESHOLD)
    service.failure = None
    assert await inquiries.request("ann@example.com", 2 * SHORT_TIMEOUT) == 200
    await fail(inquiries, 1)


async def test_successful_probe_closes_the_breaker(
    inquiries: GuardedClient[int], service: FakeThirdParty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe runs in the background, so that no caller waits for it."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", 0.0
    )
    service.failure = "hang"
    await fail(inquiries, FAILURE_THRESHOLD)
    fail_at_once(inquiries)
    await wait_until(lambda: len(service.requests) == FAILURE_THRESHOLD + 1)
    service.failure = None
    fail_at_once(inquiries)
    await wait_until(lambda: len(service.requests) == FAILURE_THRESHOLD + 2)
    assert await inquiries.request("ann@example.com", SHORT_TIMEOUT) == 200


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
    inquiries = GuardedClient("it", service.send, lambda reply: reply.status, no_budget)
    service.failure = "hang"
    await fail(inquiries, FAILURE_THRESHOLD + 1)
    before = len(asyncio.all_tasks())
    await inquiries.close()
    assert len(asyncio.all_tasks()) == before - 1


def max_in_window(taken: list[tuple[float, float]], seconds: float) -> int:
    """Return how many at most were surely let through within a time, however late we heard."""
    return max(
        sum(began <= one and end < began + seconds for one, end in taken) for began, _ in taken
    )


@pytest.mark.parametrize("processes", [1, 3])
async def test_processes_share_the_budget(
    service: FakeThirdParty, redis_url: str, processes: int
) -> None:
    """In each window, all processes together send as many requests as the rate allows. The test
    expires the windows itself; they last hours, so that none expires on its own.
    """
    servers = [RedisClient(redis_url) for _ in range(processes)]
    now = time.time()
    limits = [
        FixedWindowRateLimiter(HOURLY_BUDGET, server, 1, now=lambda: now) for server in servers
    ]
    takes = [rate_budget(each, f"third-{processes}") for each in limits]
    inquiries = [
        GuardedClient("it", service.send, lambda reply: reply.status, take) for take in takes
    ]
    taken = []
    for _ in range(7):
        service.requests.clear()
        asked = [
            one.request("ann@example.com", LONG_TIMEOUT) for one in inquiries for _ in range(20)
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(answer == 200 or isinstance(answer, Unavailable) for answer in answers)
        assert answers.count(200) == len(service.requests)
        taken.append(len(service.requests))
        async for key in servers[0].redis.scan_iter(f"*{RateLimitGroup.THIRD_PARTY_BURST}:*"):
            assert 0 < await servers[0].redis.ttl(key) <= HOUR_SECONDS
            await servers[0].redis.delete(key)
        now += HOUR_SECONDS + MARGIN_SECONDS
    assert taken == [5, 5, 5, 5, 5, 2, 0]
    for server in servers:
        await server.close()


@pytest.mark.parametrize("quiet", [0.01, 0.9, 5.5])
async def test_budget_is_kept_without_redis(service: FakeThirdParty, quiet: float) -> None:
    """No minute exceeds the quota, also when requests start late in a window; a request over the
    budget is no failure of the service.
    """
    now = 0.0
    limits = FixedWindowRateLimiter(WITH_BUDGET, None, 1, now=lambda: now)
    inquiries = GuardedClient(
        "it", service.send, lambda reply: reply.status, rate_budget(limits, "it")
    )
    asked: list[float] = []
    while now < 70:
        with suppress(Unavailable):
            assert await inquiries.request("ann@example.com", LONG_TIMEOUT) == 200
            asked.append(now)
        now += 0.01 if now else quiet
    assert len(asked) == len(service.requests)
    for seconds, most in ((1, MAX_PER_SECOND), (60, MAX_PER_MINUTE)):
        busy = max_in_window([(at, at) for at in asked], seconds)
        assert most / 2 <= busy <= most
