"""Waiting for what comes about by itself."""

import asyncio
import time
from collections.abc import Callable

SECONDS = 20.0
PAUSE = 0.02


async def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return as soon as something holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(PAUSE)
