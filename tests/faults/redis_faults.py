"""Redis killed, stopped, flushed, filled with garbage, slow, silent and cut off (row 28)."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httpx
from redis import Redis

from tests.faults.proxy import Proxy
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import Workload, count_statuses, look_up, percentile, run_workload
from tests.support.api_client import API, Member, join
from tests.support.service_process import free_port
from tests.support.waiting import wait_for_value

PHASE_SECONDS = 5.0
MORE_SECONDS = 0.1
CANCELLED = 10_000
AT_ONCE = 100
OWNERS = 100


def run(cancelled: int = CANCELLED) -> ScenarioReport:
    """Run a workload while Redis has faults, and cancel many requests."""
    report = ScenarioReport()
    with make_testbed() as testbed:
        port = free_port()
        proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", testbed.redis.port))
        proxy.start()
        with testbed.service(redis_url=f"redis://127.0.0.1:{port}/0") as service:
            asyncio.run(_inject_faults(report, testbed, proxy, service.url))
            asyncio.run(_cancel(report, service.url, cancelled))
        proxy.stop()
    return report


def _faults(
    testbed: Testbed, proxy: Proxy
) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """Return how each fault begins and ends."""

    def flush() -> None:
        with Redis(port=testbed.redis.port) as redis:
            redis.flushall()

    def write_garbage() -> None:
        with Redis(port=testbed.redis.port) as redis:
            for number, key in enumerate(redis.keys("*")):
                redis.delete(key)
                if number % 2:
                    redis.set(key, b"+\xc1garbage")
                else:
                    redis.rpush(key, "garbage")

    def do_nothing() -> None:
        pass

    def silence() -> None:
        proxy.is_silent = True

    def unsilence() -> None:
        proxy.is_silent = False
        proxy.reset()

    def slow_down() -> None:
        proxy.latency = 0.3

    def speed_up() -> None:
        proxy.latency = 0.0

    return {
        "killed": (testbed.redis.kill, testbed.redis.start),
        "stopped": (
            lambda: testbed.redis.send_signal(signal.SIGSTOP),
            lambda: testbed.redis.send_signal(signal.SIGCONT),
        ),
        "flushed": (flush, do_nothing),
        "garbage": (write_garbage, do_nothing),
        "silent": (silence, unsilence),
        "slow": (slow_down, speed_up),
        "reset": (proxy.reset, do_nothing),
    }


async def _inject_faults(report: ScenarioReport, testbed: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=4, registering=0.02) as workload:
        await workload.warm_up()
        idle = await _measure_p99(workload)
        report.record(p99_idle=idle)
        for name, (begin, end) in _faults(testbed, proxy).items():
            await asyncio.to_thread(begin)
            p99 = await _measure_p99(workload)
            await asyncio.to_thread(end)
            report.record(**{f"p99_{name}": p99})
            report.check(
                holds=p99 < idle + MORE_SECONDS, promise=f"{name}: p99 at most 100 ms more"
            )
            await wait_for_value(partial(_is_available, workload))
    requests = workload.requests
    report.record(
        requests=len(requests), statuses=count_statuses(requests), worst=percentile(requests, 1)
    )
    report.check(
        holds=all(0 < request.status < 500 for request in requests),
        promise="no 5xx, and a response to every request",
    )
    async with testbed.connection() as connection:
        lost = await workload.count_lost_writes(connection)
    report.record(acknowledged=workload.acknowledged_writes, lost=lost)
    report.check(holds=lost == 0, promise="every acknowledged write is stored")


async def _is_available(workload: Workload) -> bool:
    """Tell whether the service uses Redis."""
    return bool((await workload.client.get("/health/ready")).json()["redis"] == "ok")


async def _measure_p99(workload: Workload) -> float:
    started = time.monotonic()
    await asyncio.sleep(PHASE_SECONDS)
    return percentile(workload.between(started), 0.99)


async def _cancel(report: ScenarioReport, url: str, number: int) -> None:
    """Cancel many requests midway, and check the responses of others."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        owners = [await join(client) for _ in range(OWNERS)]
        codes = {owner.email: (await owner.issue_code())["code"] for owner in owners}
        wrong = count = 0
        for _ in range(number // AT_ONCE):
            cancelled = [_cancel_request(url, random.choice(owners)) for _ in range(AT_ONCE)]  # noqa: S311
            emails = random.sample(list(codes), 20)
            cancelling = asyncio.gather(*cancelled)
            responses = await asyncio.gather(*(look_up(client, email) for email in emails))
            await cancelling
            count += len(responses)
            wrong += sum(
                response.status_code != 200 or response.json()["code"] != codes[email]
                for response, email in zip(responses, emails, strict=True)
            )
    report.record(requests_cancelled=number, look_ups_meanwhile=count, wrong_responses=wrong)
    report.check(holds=wrong == 0, promise="no response has another key's value")


async def _cancel_request(url: str, owner: Member) -> None:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        target = f"{API}/codes/lookup?email={owner.email}&{random.random()}"  # noqa: S311
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - no secret
        writer.transport.abort()
