"""Doing at once what many requests ask for at the same time."""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

import asyncpg
import structlog

ItemT = TypeVar("ItemT")
ErrorT = TypeVar("ErrorT", bound=BaseException)
RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class BatchQueue(Generic[ItemT]):
    """Collect items while the batch before is under way; one alone goes off at once.

    A client's round trip costs about as much as all else that a look-up does, and one trip for
    twenty keys costs little more than for one.
    """

    def __init__(
        self, process_batch: Callable[[list[ItemT]], Awaitable[None]], max_size: int = 200
    ) -> None:
        """Take what is done with a batch of at most `size`; its errors are logged."""
        self._process_batch = process_batch
        self._max_size = max_size
        self._pending: list[ItemT] = []
        self._running: asyncio.Task[None] | None = None

    def drain(self) -> list[ItemT]:
        """Return the items that wait for the next batch, which has none then."""
        drained, self._pending = self._pending, []
        return drained

    def add(self, item: ItemT) -> None:
        """Have an item done soon."""
        self._pending.append(item)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._pending:
                batch, self._pending = (
                    self._pending[: self._max_size],
                    self._pending[self._max_size :],
                )
                await self._process(batch)
        finally:
            self._running = None

    async def _process(self, batch: list[ItemT]) -> None:
        try:
            await self._process_batch(batch)
        except Exception:  # noqa: BLE001 - the next batch goes on
            structlog.get_logger().exception("batch failed", items=len(batch))


DATA_ERRORS = (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""Errors that one question of many may have caused."""


class RequestCoalescer(Generic[RequestT, ResultT]):
    """Questions asked at the same time share a trip, and each gets an answer of its own."""

    def __init__(
        self,
        process_batch: Callable[[list[RequestT]], Awaitable[list[ResultT]]],
        max_size: int = 200,
    ) -> None:
        """Take what answers up to `size` questions, in their order.

        An error about data fails the question that caused it: the batch is halved until that one
        is alone. With any other error all fail, and those who queued meanwhile: or a server that
        hangs would have one batch wait for another.
        """
        self._process_batch = process_batch
        self._batches: BatchQueue[tuple[RequestT, Future[ResultT]]] = BatchQueue(
            self._resolve, max_size
        )

    async def submit(self, request: RequestT) -> ResultT:
        """Return the answer."""
        future: Future[ResultT] = asyncio.get_running_loop().create_future()
        self._batches.add((request, future))
        return await future

    async def _resolve(self, batch: list[tuple[RequestT, Future[ResultT]]]) -> None:
        unresolved = list(batch)
        try:
            await self._resolve_bisecting(batch)
        except BaseException:
            unresolved += self._batches.drain()  # their batch never comes
            raise
        finally:
            for _, future in unresolved:
                future.cancel()  # which changes nothing about one that has its answer

    async def _resolve_bisecting(self, batch: list[tuple[RequestT, Future[ResultT]]]) -> None:
        parts = [batch]
        while parts:
            part = [(question, answer) for question, answer in parts.pop() if not answer.done()]
            if not part:
                continue
            try:
                results = await self._process_batch([question for question, _ in part])
            except DATA_ERRORS as error:
                if len(part) == 1:
                    _set_exception(part, error)
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
            except Exception as error:  # noqa: BLE001 - for those who asked
                _set_exception(sum(parts, part) + self._batches.drain(), error)
                return
            else:
                _set_results(part, results)


def _set_results(part: list[tuple[RequestT, Future[ResultT]]], results: list[ResultT]) -> None:
    if len(results) != len(part):
        _set_exception(part, RuntimeError(f"{len(part)} questions got {len(results)} answers"))
        return
    for (_, future), result in zip(part, results, strict=True):
        if not future.done():
            future.set_result(result)


def _set_exception(part: Iterable[tuple[RequestT, Future[ResultT]]], error: Exception) -> None:
    for _, future in part:
        if not future.done():
            future.set_exception(copy_exception(error))


def copy_exception(error: ErrorT) -> ErrorT:
    """Return an error like another one, to be raised beside it: raising changes an error, so that
    several who raise the same object at once would find each other's traces in it.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
