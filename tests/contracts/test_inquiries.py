"""Keeping to a budget, and away from a service that does not answer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from referral.adapters.redis.client import RedisServer
from referral.adapters.redis.rate_limits import CountedLimits
from referral.adapters.third_parties.guarded_client import (
    BUDGET,
    FAILURES,
    RETRY_SECONDS,
    Breaker,
    GuardedClient,
    taking,
)
from referral.adapters.third_parties.http_response import InvalidResponse, Reply
from referral.core.entities.limits import OFF, LimitGroup, Rate
from referral.core.errors import Unavailable
from tests.support.waiting import until

WITHIN, LONG = timedelta(seconds=0.05), timedelta(seconds=20)
WITH_BUDGET = dict.fromkeys(LimitGroup, OFF) | BUDGET
BURST, MINUTE = 10, 300
HOUR, SPARE = 3600, 60
BY_HOURS = WITH_BUDGET | {
    group: Rate(rate.number, rate.within * HOUR) for group, rate in BUDGET.items()
}
"""The same with hours in place of seconds."""


class Service:
    """A third party that answers with 200, or not in time, and remembers what it was asked."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.asked: list[str] = []

    async def send(self, mailbox: str, within: float) -> Reply:  # noqa: ARG002 - as the port has it
        self.asked.append(mailbox)
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault:
            raise InvalidResponse(self.fault)
        return Reply(200, None)


async def always() -> bool:
    """Have room."""
    return True


@pytest.fixture
def service() -> Service:
    """A service that answers."""
    return Service()


@pytest.fixture
async def inquiries(service: Service) -> AsyncIterator[GuardedClient[int]]:
    """Questions to it that have no budget."""
    inquiries = GuardedClient("it", service.send, lambda reply: reply.status, always)
    yield inquiries
    await inquiries.close()


async def fail(inquiries: GuardedClient[int], times: int) -> None:
    """Ask in vain."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            await inquiries.ask("ann@example.com", WITHIN)


def fail_at_once(inquiries: GuardedClient[int]) -> None:
    """Ask in vain, and without a turn of the event loop, so that there is nothing to wait for."""
    with pytest.raises(Unavailable):
        inquiries.ask("ann@example.com", WITHIN).send(None)


@pytest.mark.parametrize("fault", ["status 500", "hang"])
async def test_after_some_failures_nobody_waits(
    inquiries: GuardedClient[int], service: Service, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody is asked, until it is time to try."""
    monkeypatch.setattr("referral.adapters.third_parties.guarded_client.RETRY_SECONDS", math.inf)
    service.fault = fault
    await fail(inquiries, FAILURES)
    for _ in range(200):
        fail_at_once(inquiries)
    await asyncio.sleep(0)
    assert len(service.asked) == FAILURES


async def test_failures_in_between_are_forgiven(
    inquiries: GuardedClient[int], service: Service
) -> None:
    """Only those in a row count."""
    for _ in range(3):
        service.fault = "status 500"
        await fail(inquiries, FAILURES - 1)
        service.fault = None
        assert await inquiries.ask("ann@example.com", WITHIN) == 200


async def test_each_patience_learns_for_itself(
    inquiries: GuardedClient[int], service: Service
) -> None:
    """Who waits longer may get answers where others do not."""
    service.fault = "hang"
    await fail(inquiries, FAILURES)
    service.fault = None
    assert await inquiries.ask("ann@example.com", 2 * WITHIN) == 200
    await fail(inquiries, 1)


async def test_a_probe_that_is_answered_ends_it(
    inquiries: GuardedClient[int], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the background, so that nobody waits for it either."""
    monkeypatch.setattr("referral.adapters.third_parties.guarded_client.RETRY_SECONDS", 0.0)
    service.fault = "hang"
    await fail(inquiries, FAILURES)
    fail_at_once(inquiries)
    await until(lambda: len(service.asked) == FAILURES + 1)
    service.fault = None
    fail_at_once(inquiries)
    await until(lambda: len(service.asked) == FAILURES + 2)
    assert await inquiries.ask("ann@example.com", WITHIN) == 200


def test_a_probe_is_taken_once_in_a_while() -> None:
    """By whoever comes first after the pause."""
    now = [0.0]
    breaker = Breaker("it", lambda: now[0])
    for _ in range(FAILURES):
        breaker.fail("status 500")
    assert not breaker.take_probe()
    for _ in range(2):
        now[0] += RETRY_SECONDS
        assert [breaker.take_probe(), breaker.take_probe()] == [True, False]
    breaker.succeed()
    assert not breaker.is_open


async def test_closing_gives_up_probes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left running behind a service that stops."""
    monkeypatch.setattr("referral.adapters.third_parties.guarded_client.RETRY_SECONDS", 0.0)
    inquiries = GuardedClient("it", service.send, lambda reply: reply.status, always)
    service.fault = "hang"
    await fail(inquiries, FAILURES + 1)
    before = len(asyncio.all_tasks())
    await inquiries.close()
    assert len(asyncio.all_tasks()) == before - 1


def busiest(taken: list[tuple[float, float]], seconds: float) -> int:
    """Return how many at most were surely let through within a time, however late we heard."""
    return max(
        sum(began <= one and end < began + seconds for one, end in taken) for began, _ in taken
    )


@pytest.mark.parametrize("processes", [1, 3])
async def test_the_budget_is_kept_by_all_processes(
    service: Service, redis_url: str, processes: int
) -> None:
    """However many ask, each window lets as many through as its rate says, no more and no fewer;
    the test ends the windows, which last hours, so that none ends by itself.
    """
    servers = [RedisServer(redis_url) for _ in range(processes)]
    now = time.time()
    limits = [CountedLimits(BY_HOURS, server, 1, now=lambda: now) for server in servers]
    takes = [taking(each, f"third-{processes}") for each in limits]
    inquiries = [
        GuardedClient("it", service.send, lambda reply: reply.status, take) for take in takes
    ]
    taken = []
    for _ in range(7):
        service.asked.clear()
        asked = [one.ask("ann@example.com", LONG) for one in inquiries for _ in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(answer == 200 or isinstance(answer, Unavailable) for answer in answers)
        assert answers.count(200) == len(service.asked)
        taken.append(len(service.asked))
        async for key in servers[0].client.scan_iter(f"*{LimitGroup.THIRD_PARTY_BURST}:*"):
            assert 0 < await servers[0].client.ttl(key) <= HOUR
            await servers[0].client.delete(key)
        now += HOUR + SPARE
    assert taken == [5, 5, 5, 5, 5, 2, 0]
    for server in servers:
        await server.close()


@pytest.mark.parametrize("quiet", [0.01, 0.9, 5.5])
async def test_without_redis_a_process_keeps_the_budget(service: Service, quiet: float) -> None:
    """Whoever asks all the time, also from late in a window on, is let through less often than the
    quota in any minute; that others are not is no failure of the service.
    """
    now = 0.0
    limits = CountedLimits(WITH_BUDGET, None, 1, now=lambda: now)
    inquiries = GuardedClient("it", service.send, lambda reply: reply.status, taking(limits, "it"))
    asked: list[float] = []
    while now < 70:
        with suppress(Unavailable):
            assert await inquiries.ask("ann@example.com", LONG) == 200
            asked.append(now)
        now += 0.01 if now else quiet
    assert len(asked) == len(service.asked)
    for seconds, most in ((1, BURST), (60, MINUTE)):
        busy = busiest([(at, at) for at in asked], seconds)
        assert most / 2 <= busy <= most
