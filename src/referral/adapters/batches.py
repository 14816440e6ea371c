"""Doing at once what many requests ask for at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """Collect items while the batch before is under way; one alone goes off at once.

    A client's round trip costs about as much as all else that a look-up does, and one trip for
    twenty keys costs little more than for one.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[None]], size: int = 200) -> None:
        """Take what is done with a batch of at most `size`; it must not raise."""
        self._work = work
        self._size = size
        self._waiting: list[T] = []
        self._running: asyncio.Task[None] | None = None

    def add(self, item: T) -> None:
        """Have an item done soon."""
        self._waiting.append(item)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                await self._work(batch)
        finally:
            self._running = None
