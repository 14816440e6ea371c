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

SECONDS = 120.0
"""After which it is taken for granted that a thing never comes about."""

PAUSE = 0.02


@dataclass
class Elapsed:
    """How much time a thread had, in seconds."""

    seconds: float = 0.0


@asynccontextmanager
async def elapsing() -> AsyncIterator[Elapsed]:
    """Count the time in which this thread ran or slept, and not that in which it was ready and got
    no processor: a clock that stands still while the machine has no time for this process, goes on
    while something blocks the event loop, and never goes faster than the one on the wall.
    """
    elapsed, over = Elapsed(), threading.Event()
    state = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
    processor = time.pthread_getcpuclockid(threading.get_ident())
    began, used = time.monotonic(), time.clock_gettime(processor)

    def watch() -> None:
        asleep, ended = 0.0, False
        while not ended:
            ended = over.wait(PAUSE)
            if not ended and state.read_text().rpartition(") ")[2].startswith("S"):
                asleep += PAUSE
            ran = time.clock_gettime(processor) - used
            elapsed.seconds = min(time.monotonic() - began, ran + asleep)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield elapsed
    finally:
        over.set()
        watcher.join()


async def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return as soon as something holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(PAUSE)


async def until_found(find: Callable[[], Awaitable[T]], seconds: float = SECONDS) -> T:
    """Return what is found as soon as it is something; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := await find()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(PAUSE)
    return found


def until_listening(port: int, seconds: float = SECONDS) -> None:
    """Return as soon as something listens on a port of this machine; fails when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(PAUSE)
