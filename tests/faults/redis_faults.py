"""Redis killed, stopped, flushed, filled with garbage, slow, silent and cut off (row 28)."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
from redis import Redis

from tests.faults.proxy import Proxy
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import Workload, count_statuses, look_up, percentile, run_workload
from tests.support.api_client import API, Member, join
from tests.support.service_process import free_port

PHASE_SECONDS = 5.0
MORE_SECONDS = 0.1
CANCELLED = 10_000
AT_ONCE = 100
OWNERS = 100


def run(cancelled: int = CANCELLED) -> ScenarioReport:
    """Have a crowd at work while Redis is in trouble, and cancel very many requests."""
    figures = ScenarioReport()
    with make_testbed() as place:
        port = free_port()
        proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", place.redis.port))
        proxy.start()
        with place.service(redis_url=f"redis://127.0.0.1:{port}/0") as service:
            asyncio.run(_trouble(figures, place, proxy, service.url))
            asyncio.run(_cancel(figures, service.url, cancelled))
        proxy.stop()
    return figures


def _phases(
    place: Testbed, proxy: Proxy
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Return how each trouble begins and ends."""

    def flush() -> None:
        with Redis(port=place.redis.port) as redis:
            redis.flushall()

    def spoil() -> None:
        with Redis(port=place.redis.port) as redis:
            for number, key in enumerate(redis.keys("*")):
                redis.delete(key)
                if number % 2:
                    redis.set(key, b"+\xc1garbage")
                else:
                    redis.rpush(key, "garbage")

    def nothing() -> None:
        pass

    def set_silent() -> None:
        proxy.is_silent = True

    def speak() -> None:
        proxy.is_silent = False
        proxy.reset()

    def slow_down() -> None:
        proxy.latency = 0.3

    def speed_up() -> None:
        proxy.latency = 0.0

    return {
        "killed": (place.redis.kill, place.redis.start),
        "stopped": (
            lambda: place.redis.send_signal(signal.SIGSTOP),
            lambda: place.redis.send_signal(signal.SIGCONT),
        ),
        "flushed": (flush, nothing),
        "spoilt": (spoil, nothing),
        "silent": (set_silent, speak),
        "slow": (slow_down, speed_up),
        "reset": (proxy.reset, nothing),
    }


async def _trouble(figures: ScenarioReport, place: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=4, joining=0.02) as people:
        await asyncio.sleep(1)
        idle = await _phase(people)
        figures.record(p99_in_peace=idle)
        for name, (begin, end) in _phases(place, proxy).items():
            await asyncio.to_thread(begin)
            p99 = await _phase(people)
            await asyncio.to_thread(end)
            figures.record(**{f"p99_{name}": p99})
            figures.check(
                holds=p99 < idle + MORE_SECONDS, promise=f"{name}: p99 at most 100 ms more"
            )
            await asyncio.sleep(1.5)
    seen = people.requests
    figures.record(requests=len(seen), statuses=count_statuses(seen), worst=percentile(seen, 1))
    figures.check(
        holds=all(0 < each.status < 500 for each in seen),
        promise="no 5xx and no request without an answer",
    )
    async with place.connection() as connection:
        lost = await people.find_lost_writes(connection)
    figures.record(acknowledged=people.count_acknowledged, lost=lost)
    figures.check(holds=lost == 0, promise="every acknowledged write is there")


async def _phase(people: Workload) -> float:
    began = time.monotonic()
    await asyncio.sleep(PHASE_SECONDS)
    return percentile(people.between(began), 0.99)


async def _cancel(figures: ScenarioReport, url: str, number: int) -> None:
    """Hang up on very many requests midway, and look whether others get what is theirs."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        owners = [await join(client) for _ in range(OWNERS)]
        codes = {owner.email: (await owner.issue_code())["code"] for owner in owners}
        wrong = asked = 0
        for _ in range(number // AT_ONCE):
            hanging_up = [_hang_up(url, random.choice(owners)) for _ in range(AT_ONCE)]  # noqa: S311
            emails = random.sample(list(codes), 20)
            gone = asyncio.gather(*hanging_up)
            answers = await asyncio.gather(*(look_up(client, email) for email in emails))
            await gone
            asked += len(answers)
            wrong += sum(
                answer.status_code != 200 or answer.json()["code"] != codes[email]
                for answer, email in zip(answers, emails, strict=True)
            )
    figures.record(requests_cancelled=number, look_ups_meanwhile=asked, wrong_answers=wrong)
    figures.check(holds=wrong == 0, promise="nobody gets another key's value")


async def _hang_up(url: str, owner: Member) -> None:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        target = f"{API}/codes/lookup?email={owner.email}&{random.random()}"  # noqa: S311
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - no secret
        writer.transport.abort()
