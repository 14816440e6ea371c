"""Hot look-ups beside floods of slow requests, and what the process takes of memory meanwhile."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.performance.benchmarks import (
    AUTHORIZED_SCRIPT,
    ROUNDS,
    codes,
    median_measurement,
    register,
    spread,
)
from tests.performance.load import SECONDS, Measurement, run_at_rate, run_wrk
from tests.performance.testbed import Testbed
from tests.support.api_client import API
from tests.support.process_stats import MemoryUsage, memory_usage

RATE = 500
LOGINS, LOGIN_CONNECTIONS = 300, 60
MINUTES = float(os.environ.get("BENCH_MINUTES", "5"))
SAMPLE_SECONDS = 5

# Each connection waits between its requests for so long that together they send the rate.
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


def floods(stage: Testbed) -> Iterator[tuple[str, Measurement, Measurement]]:
    """Yield the name of each flood, and hot look-ups in peace and during it, in turns."""

    def registrations(seconds: float) -> object:
        return run_wrk(stage.service.url, register(), connections=64, seconds=seconds)

    def logins(seconds: float) -> object:
        pause = LOGIN_CONNECTIONS * 1000 // LOGINS
        script = LOGIN_SCRIPT.format(pause=pause, path=f"{API}/auth/token")
        connections = LOGIN_CONNECTIONS
        return run_wrk(
            stage.service.url, script, connections=connections, seconds=seconds, refusals=True
        )

    yield "64 who register at once", *_beside(stage, registrations)
    yield f"{LOGINS} logins a second", *_beside(stage, logins)


def _beside(stage: Testbed, flood: Flood) -> tuple[Measurement, Measurement]:
    idle, flooded = [], []
    _look_up(stage, 1)
    for _ in range(ROUNDS):
        idle.append(_look_up(stage, SECONDS))
        with _run_together(lambda: flood(SECONDS + 2)):
            time.sleep(1)  # until the queue of hashes is full
            flooded.append(_look_up(stage, SECONDS))
    return median_measurement(idle), median_measurement(flooded)


def _look_up(stage: Testbed, seconds: float) -> Measurement:
    port = int(stage.service.url.rpartition(":")[2])
    return asyncio.run(
        run_at_rate(port, f"{API}/codes/lookup?email=b1@bench.example", RATE, seconds)
    )


def memory_under_load(stage: Testbed) -> list[MemoryUsage]:
    """Return what a worker takes, every few seconds of all kinds of load at once."""
    seconds, ours = MINUTES * 60, stage.service.url
    me = AUTHORIZED_SCRIPT.format(token=stage.token(1))
    path = f"{API}/codes/lookup"
    loads: list[Callable[[], object]] = [
        lambda: run_wrk(ours, register(), connections=8, seconds=seconds),
        lambda: run_wrk(ours, spread(path), connections=4, seconds=seconds),
        lambda: run_wrk(f"{ours}{API}/me", me, connections=2, seconds=seconds),
        lambda: codes(stage, seconds=seconds),
    ]
    found: list[MemoryUsage] = []
    with _run_together(*loads):
        end = time.monotonic() + seconds - SAMPLE_SECONDS
        while time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
            found.append(memory_usage(stage.service.worker()))
    return found


@contextmanager
def _run_together(*works: Callable[[], object]) -> Iterator[None]:
    faults: list[Exception] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread that waits
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]
