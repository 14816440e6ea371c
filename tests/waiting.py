"""Waiting for what comes about by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 20.0
PAUSE = 0.02


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
