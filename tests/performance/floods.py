"""Hot look-ups beside floods of slow requests, and what the process takes of memory meanwhile."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.performance.load import SECONDS, Measured, load, paced
from tests.performance.measures import ROUNDS, SIGNED_IN, codes, middle, register, spread
from tests.performance.stage import Stage
from tests.support.journey import API
from tests.support.watching import Memory, memory

RATE = 500
LOGINS, LOGIN_CONNECTIONS = 300, 60
MINUTES = float(os.environ.get("BENCH_MINUTES", "5"))
SAMPLE_SECONDS = 5

# Each connection waits between its requests for so long that together they send the rate.
LOG_IN = """
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


def floods(stage: Stage) -> Iterator[tuple[str, Measured, Measured]]:
    """Yield the name of each flood, and hot look-ups in peace and during it, in turns."""

    def registrations(seconds: float) -> object:
        return load(stage.service.url, register(), connections=64, seconds=seconds)

    def logins(seconds: float) -> object:
        pause = LOGIN_CONNECTIONS * 1000 // LOGINS
        script = LOG_IN.format(pause=pause, path=f"{API}/auth/token")
        connections = LOGIN_CONNECTIONS
        return load(
            stage.service.url, script, connections=connections, seconds=seconds, refusals=True
        )

    yield "64 who register at once", *_beside(stage, registrations)
    yield f"{LOGINS} logins a second", *_beside(stage, logins)


def _beside(stage: Stage, flood: Flood) -> tuple[Measured, Measured]:
    idle, flooded = [], []
    _look_up(stage, 1)
    for _ in range(ROUNDS):
        idle.append(_look_up(stage, SECONDS))
        with _meanwhile(lambda: flood(SECONDS + 2)):
            time.sleep(1)  # until the queue of hashes is full
            flooded.append(_look_up(stage, SECONDS))
    return middle(idle), middle(flooded)


def _look_up(stage: Stage, seconds: float) -> Measured:
    port = int(stage.service.url.rpartition(":")[2])
    return asyncio.run(paced(port, f"{API}/codes/lookup?email=b1@bench.example", RATE, seconds))


def memory_under_load(stage: Stage) -> list[Memory]:
    """Return what a worker takes, every few seconds of all kinds of load at once."""
    seconds, ours = MINUTES * 60, stage.service.url
    me = SIGNED_IN.format(token=stage.token(1))
    path = f"{API}/codes/lookup"
    loads: list[Callable[[], object]] = [
        lambda: load(ours, register(), connections=8, seconds=seconds),
        lambda: load(ours, spread(path), connections=4, seconds=seconds),
        lambda: load(f"{ours}{API}/me", me, connections=2, seconds=seconds),
        lambda: codes(stage, seconds=seconds),
    ]
    found: list[Memory] = []
    with _meanwhile(*loads):
        end = time.monotonic() + seconds - SAMPLE_SECONDS
        while time.monotonic() < end:
            time.sleep(SAMPLE_SECONDS)
            found.append(memory(stage.service.worker()))
    return found


@contextmanager
def _meanwhile(*works: Callable[[], object]) -> Iterator[None]:
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
