"""Doing at once what many requests ask for at the same time."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Q = TypeVar("Q")
A = TypeVar("A")


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

    def take_back(self) -> list[T]:
        """Return the items that wait for the next batch, which has none then."""
        taken, self._waiting = self._waiting, []
        return taken

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


class Trips(Generic[Q, A]):
    """Questions asked at the same time share a trip, and each gets an answer of its own."""

    def __init__(self, work: Callable[[list[Q]], Awaitable[list[A]]], size: int = 200) -> None:
        """Take what answers up to `size` questions, in their order; what it raises, each gets, and
        those who queued meanwhile: or a server that hangs would have one batch wait for another.
        """
        self._work = work
        self._batches: Batches[tuple[Q, Future[A]]] = Batches(self._answer, size)

    async def ask(self, question: Q) -> A:
        """Return the answer."""
        answer: Future[A] = asyncio.get_running_loop().create_future()
        self._batches.add((question, answer))
        return await answer

    async def _answer(self, batch: list[tuple[Q, Future[A]]]) -> None:
        waiting = [(question, answer) for question, answer in batch if not answer.done()]
        if not waiting:
            return
        try:
            answers = await self._work([question for question, _ in waiting])
        except Exception as error:  # noqa: BLE001 - for those who asked
            for _, answer in waiting + self._batches.take_back():
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), found in zip(waiting, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
