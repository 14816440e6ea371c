"""Waiting for conditions, and measuring the time that a thread had."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

WAIT_SECONDS = 120.0
"""The default timeout."""

POLL_SECONDS = 0.02


@dataclass
class ThreadTime:
    """The time that a thread had, in seconds."""

    seconds: float = 0.0


@asynccontextmanager
async def measure_thread_time() -> AsyncIterator[ThreadTime]:
    """Measure the time in which this thread ran or slept.

    Time in which the thread was runnable but got no CPU does not count. So the clock stops on a
    busy machine, runs while something blocks the event loop, and never exceeds wall-clock time.
    """
    elapsed, stopping = ThreadTime(), threading.Event()
    stat_file = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
    cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
    started_at, cpu_at_start = time.monotonic(), time.clock_gettime(cpu_clock)

    def watch() -> None:
        asleep, ended = 0.0, False
        while not ended:
            ended = stopping.wait(POLL_SECONDS)
            if not ended and stat_file.read_text().rpartition(") ")[2].startswith("S"):
                asleep += POLL_SECONDS
            ran = time.clock_gettime(cpu_clock) - cpu_at_start
            elapsed.seconds = min(time.monotonic() - started_at, ran + asleep)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield elapsed
    finally:
        stopping.set()
        watcher.join()


async def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    """Wait until a condition holds; fail after the timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(POLL_SECONDS)


async def wait_for_value(find: Callable[[], Awaitable[T]], seconds: float = WAIT_SECONDS) -> T:
    """Wait until `find` returns a truthy value, and return it; fail after the timeout."""
    deadline = time.monotonic() + seconds
    while not (found := await find()):
        assert time.monotonic() < deadline, "the condition did not hold in time"
        await asyncio.sleep(POLL_SECONDS)
    return found


def wait_for_port(port: int, seconds: float = WAIT_SECONDS) -> None:
    """Wait until a local port accepts connections; fail after the timeout."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(POLL_SECONDS)
