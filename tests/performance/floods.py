"""Hot lookups during a flood of slow requests, and the memory of the process under load."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from tests.performance.benchmarks import (
    AUTHORIZED_SCRIPT,
    ROUNDS,
    create_and_delete_codes,
    median_measurement,
    register_script,
    spread_script,
)
from tests.performance.load import SECONDS, Measurement, run_at_rate, run_wrk
from tests.performance.testbed import Testbed
from tests.support.api_client import API
from tests.support.metrics import scrape
from tests.support.process_stats import MemoryUsage, memory_usage
from tests.support.waiting import wait_for_value

RATE = 500
LOGINS, LOGIN_CONNECTIONS = 300, 60
MINUTES = float(os.environ.get("BENCH_MINUTES", "5"))
SAMPLE_SECONDS = 5

# Each connection pauses between its requests, so that all together send at the rate.
LOGIN_SCRIPT = """
local number = 0
function delay() return {pause} end
request = function()
    number = number % 1000 + 1
    local body = "grant_type=password&password=a+wrong+guess&username=b" .. number ..
        "@bench.example"
    return wrk.format("POST", "{path}",
        {{ ["Content-Type"] = "application/x-www-form-urlencoded" }}, body)
end
response = function(status)
    if status ~= 200 and status ~= 400 and status ~= 429 and status ~= 503 then
        print("unexpected", status)
    end
end
"""

Flood = Callable[[float], object]


def floods(testbed: Testbed) -> Iterator[tuple[str, Measurement, Measurement]]:
    """Yield the name of each flood, and hot lookups without and with it, in turns."""

    def registrations(seconds: float) -> object:
        return run_wrk(testbed.service.url, register_script(), connections=64, seconds=seconds)

    def logins(seconds: float) -> object:
        pause = LOGIN_CONNECTIONS * 1000 // LOGINS
        script = LOGIN_SCRIPT.format(pause=pause, path=f"{API}/auth/token")
        connections = LOGIN_CONNECTIONS
        return run_wrk(
            testbed.service.url, script, connections=connections, seconds=seconds, allow_errors=True
        )

    yield "64 who register at once", *_measure_during(testbed, registrations)
    yield f"{LOGINS} logins a second", *_measure_during(testbed, logins)


def _measure_during(testbed: Testbed, flood: Flood) -> tuple[Measurement, Measurement]:
    idle, flooded = [], []
    _look_up(testbed, 1)
    for _ in range(ROUNDS):
        idle.append(_look_up(testbed, SECONDS))
        with _run_together(lambda: flood(SECONDS + 2)):
            asyncio.run(_wait_for_queued_hashes(testbed.service.url))
            flooded.append(_look_up(testbed, SECONDS))
    return median_measurement(idle), median_measurement(flooded)


async def _wait_for_queued_hashes(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:

        async def has_queued_hashes() -> bool:
            return (await scrape(client)).value("referral_hashes_waiting") > 0

        await wait_for_value(has_queued_hashes, SECONDS)


def _look_up(testbed: Testbed, seconds: float) -> Measurement:
    port = int(testbed.service.url.rpartition(":")[2])
    return asyncio.run(
        run_at_rate(port, f"{API}/codes/lookup?email=b1@bench.example", RATE, seconds)
    )


def memory_under_load(testbed: Testbed) -> list[MemoryUsage]:
    """Return memory samples of a process under all kinds of load at once."""
    seconds, url = MINUTES * 60, testbed.service.url
    me = AUTHORIZED_SCRIPT.format(token=testbed.token(1))
    path = f"{API}/codes/lookup"
    loads: list[Callable[[], object]] = [
        lambda: run_wrk(url, register_script(), connections=8, seconds=seconds),
        lambda: run_wrk(url, spread_script(path), connections=4, seconds=seconds),
        lambda: run_wrk(f"{url}{API}/me", me, connections=2, seconds=seconds),
        lambda: create_and_delete_codes(testbed, seconds=seconds),
    ]
    samples: list[MemoryUsage] = []
    with _run_together(*loads):
        end = time.monotonic() + seconds - SAMPLE_SECONDS
        while time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
            samples.append(memory_usage(testbed.service.process_id()))
    return samples


@contextmanager
def _run_together(*functions: Callable[[], object]) -> Iterator[None]:
    errors: list[Exception] = []

    def run(function: Callable[[], object]) -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - raised below, in the waiting thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
