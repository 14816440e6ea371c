"""Doing at once what many requests ask for at the same time."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import asyncpg
import structlog

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
Q = TypeVar("Q")
A = TypeVar("A")


class BatchQueue(Generic[T]):
    """Collect items while the batch before is under way; one alone goes off at once.

    A client's round trip costs about as much as all else that a look-up does, and one trip for
    twenty keys costs little more than for one.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[None]], size: int = 200) -> None:
        """Take what is done with a batch of at most `size`; its errors are logged."""
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
                await self._try(batch)
        finally:
            self._running = None

    async def _try(self, batch: list[T]) -> None:
        try:
            await self._work(batch)
        except Exception:  # noqa: BLE001 - the next batch goes on
            structlog.get_logger().exception("batch failed", items=len(batch))


DATA_ERRORS = (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""Errors that one question of many may have caused."""


class RequestCoalescer(Generic[Q, A]):
    """Questions asked at the same time share a trip, and each gets an answer of its own."""

    def __init__(self, work: Callable[[list[Q]], Awaitable[list[A]]], size: int = 200) -> None:
        """Take what answers up to `size` questions, in their order.

        An error about data fails the question that caused it: the batch is halved until that one
        is alone. With any other error all fail, and those who queued meanwhile: or a server that
        hangs would have one batch wait for another.
        """
        self._work = work
        self._batches: BatchQueue[tuple[Q, Future[A]]] = BatchQueue(self._answer, size)

    async def ask(self, question: Q) -> A:
        """Return the answer."""
        answer: Future[A] = asyncio.get_running_loop().create_future()
        self._batches.add((question, answer))
        return await answer

    async def _answer(self, batch: list[tuple[Q, Future[A]]]) -> None:
        waiting = list(batch)
        try:
            await self._answer_parts(batch)
        except BaseException:
            waiting += self._batches.take_back()  # their batch never comes
            raise
        finally:
            for _, answer in waiting:
                answer.cancel()  # which changes nothing about one that has its answer

    async def _answer_parts(self, batch: list[tuple[Q, Future[A]]]) -> None:
        parts = [batch]
        while parts:
            part = [(question, answer) for question, answer in parts.pop() if not answer.done()]
            if not part:
                continue
            try:
                answers = await self._work([question for question, _ in part])
            except DATA_ERRORS as error:
                if len(part) == 1:
                    _fail(part, error)
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
            except Exception as error:  # noqa: BLE001 - for those who asked
                _fail(sum(parts, part) + self._batches.take_back(), error)
                return
            else:
                _settle(part, answers)


def _settle(part: list[tuple[Q, Future[A]]], answers: list[A]) -> None:
    if len(answers) != len(part):
        _fail(part, RuntimeError(f"{len(part)} questions got {len(answers)} answers"))
        return
    for (_, answer), found in zip(part, answers, strict=True):
        if not answer.done():
            answer.set_result(found)


def _fail(part: Iterable[tuple[Q, Future[A]]], error: Exception) -> None:
    for _, answer in part:
        if not answer.done():
            answer.set_exception(copy_of(error))


def copy_of(error: E) -> E:
    """Return an error like another one, to be raised beside it: raising changes an error, so that
    several who raise the same object at once would find each other's traces in it.
    """
    other = type(error).__new__(type(error), *error.args)
    other.__dict__.update(error.__dict__)
    other.__cause__, other.__context__ = error.__cause__, error.__context__
    other.__suppress_context__ = error.__suppress_context__
    return other.with_traceback(error.__traceback__)
