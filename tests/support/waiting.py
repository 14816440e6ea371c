"""Waiting for what comes about by itself."""

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
"""After which it is taken for granted that a thing never comes about."""

POLL_SECONDS = 0.02


@dataclass
class ThreadTime:
    """How much time a thread had, in seconds."""

    seconds: float = 0.0


@asynccontextmanager
async def measure_thread_time() -> AsyncIterator[ThreadTime]:
    """Count the time in which this thread ran or slept, and not that in which it was ready and got
    no processor: a clock that stands still while the machine has no time for this process, goes on
    while something blocks the event loop, and never goes faster than the one on the wall.
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
    """Return as soon as something holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(POLL_SECONDS)


async def wait_for_value(find: Callable[[], Awaitable[T]], seconds: float = WAIT_SECONDS) -> T:
    """Return what is found as soon as it is something; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := await find()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(POLL_SECONDS)
    return found


def wait_for_port(port: int, seconds: float = WAIT_SECONDS) -> None:
    """Return as soon as something listens on a port of this machine; fails when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(POLL_SECONDS)
