"""Keeping to a budget, and away from a service that does not answer."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from referral.adapters.inquiries import BUDGET, FAILURES, PAUSE, Breaker, Inquiries, taking
from referral.adapters.limits import CountedLimits
from referral.adapters.redis import RedisServer
from referral.adapters.replies import NoReply, Reply
from referral.core.errors import Unavailable
from referral.core.limits import OFF, LimitGroup
from tests.waiting import until

WITHIN = timedelta(seconds=0.05)
WITH_BUDGET = dict.fromkeys(LimitGroup, OFF) | BUDGET
SECONDS = 3.5
BURST, MINUTE = 10, 300


class Service:
    """A third party that answers with 200, or not in time, and remembers when it was asked."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.asked: list[float] = []

    async def send(self, mailbox: str, within: float) -> Reply:  # noqa: ARG002 - as the port has it
        self.asked.append(time.monotonic())
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault:
            raise NoReply(self.fault)
        return Reply(200, None)


async def always() -> bool:
    """Have room."""
    return True


@pytest.fixture
def service() -> Service:
    """A service that answers."""
    return Service()


@pytest.fixture
async def inquiries(service: Service) -> AsyncIterator[Inquiries[int]]:
    """Questions to it that have no budget."""
    inquiries = Inquiries("it", service.send, lambda reply: reply.status, always)
    yield inquiries
    await inquiries.close()


async def fail(inquiries: Inquiries[int], times: int) -> None:
    """Ask in vain."""
    for _ in range(times):
        with pytest.raises(Unavailable):
            await inquiries.ask("ann@example.com", WITHIN)


@pytest.mark.parametrize("fault", ["status 500", "hang"])
async def test_after_some_failures_nobody_waits(
    inquiries: Inquiries[int], service: Service, fault: str
) -> None:
    """And nobody is asked, until it is time to try."""
    service.fault = fault
    await fail(inquiries, FAILURES)
    began = time.perf_counter()
    await fail(inquiries, 200)
    assert time.perf_counter() - began < WITHIN.total_seconds()
    assert len(service.asked) == FAILURES


async def test_failures_in_between_are_forgiven(
    inquiries: Inquiries[int], service: Service
) -> None:
    """Only those in a row count."""
    for _ in range(3):
        service.fault = "status 500"
        await fail(inquiries, FAILURES - 1)
        service.fault = None
        assert await inquiries.ask("ann@example.com", WITHIN) == 200


async def test_each_patience_learns_for_itself(inquiries: Inquiries[int], service: Service) -> None:
    """Who waits longer may get answers where others do not."""
    service.fault = "hang"
    await fail(inquiries, FAILURES)
    service.fault = None
    assert await inquiries.ask("ann@example.com", 2 * WITHIN) == 200
    await fail(inquiries, 1)


async def test_a_probe_that_is_answered_ends_it(
    inquiries: Inquiries[int], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the background, so that nobody waits for it either."""
    monkeypatch.setattr("referral.adapters.inquiries.PAUSE", 0.0)
    service.fault = "hang"
    await fail(inquiries, FAILURES)
    began = time.perf_counter()
    await fail(inquiries, 1)
    assert time.perf_counter() - began < WITHIN.total_seconds()
    await until(lambda: len(service.asked) == FAILURES + 1)
    service.fault = None
    await fail(inquiries, 1)
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
        now[0] += PAUSE
        assert [breaker.take_probe(), breaker.take_probe()] == [True, False]
    breaker.succeed()
    assert not breaker.is_open


async def test_closing_gives_up_probes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left running behind a service that stops."""
    monkeypatch.setattr("referral.adapters.inquiries.PAUSE", 0.0)
    inquiries = Inquiries("it", service.send, lambda reply: reply.status, always)
    service.fault = "hang"
    await fail(inquiries, FAILURES + 1)
    before = len(asyncio.all_tasks())
    await inquiries.close()
    assert len(asyncio.all_tasks()) == before - 1


async def ask_on(inquiries: Inquiries[int], until_then: float) -> int:
    """Ask as fast as there are answers; return how many there were."""
    answers = 0
    while time.monotonic() < until_then:
        try:
            await inquiries.ask("ann@example.com", timedelta(seconds=1))
            answers += 1
        except Unavailable:
            await asyncio.sleep(0.001)
    return answers


@pytest.mark.parametrize("processes", [1, 2])
async def test_the_budget_is_kept_by_all_processes(
    service: Service, redis_url: str, processes: int
) -> None:
    """However many ask, no second has more than ten questions; and what there is, is used."""
    servers = [RedisServer(redis_url) for _ in range(processes)]
    asking = [
        Inquiries(
            "it",
            service.send,
            lambda reply: reply.status,
            taking(CountedLimits(WITH_BUDGET, server, 1), f"third-{processes}"),
        )
        for server in servers
    ]
    end = time.monotonic() + SECONDS
    answers = await asyncio.gather(*(ask_on(one, end) for one in asking for _ in range(20)))
    times = service.asked
    assert sum(answers) == len(times)
    busiest = max(bisect_left(times, at + 1) - number for number, at in enumerate(times))
    assert busiest <= BURST
    assert len(times) >= 4 * int(SECONDS)
    for server in servers:
        await server.close()


def test_the_budget_of_a_minute_is_kept_by_its_windows() -> None:
    """A minute that touches eleven windows of six seconds has less than the quota in it."""
    pace = BUDGET[LimitGroup.THIRD_PARTY_PACE]
    assert (pace.number or MINUTE) * 11 <= MINUTE


async def test_without_redis_a_process_keeps_the_budget(service: Service) -> None:
    """Those beyond it are not asked, and that is no failure of the service."""
    limits = CountedLimits(WITH_BUDGET, None, 1)
    inquiries = Inquiries("it", service.send, lambda reply: reply.status, taking(limits, "it"))
    answers = [
        await asyncio.gather(inquiries.ask("ann@example.com", WITHIN), return_exceptions=True)
        for _ in range(50)
    ]
    assert 5 <= len(service.asked) <= BURST
    assert sum(answer[0] == 200 for answer in answers) == len(service.asked)
