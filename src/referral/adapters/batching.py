"""Batching: concurrent requests share round trips."""

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
    """Processes items in batches, one batch at a time.

    An idle queue processes an item at once; items added meanwhile form the next batch. A round trip
    costs about as much as the rest of a lookup, and twenty keys cost little more than one.
    """

    def __init__(
        self, process_batch: Callable[[list[ItemT]], Awaitable[None]], max_size: int = 200
    ) -> None:
        """A batch has at most `max_size` items; errors of `process_batch` are logged."""
        self._process_batch = process_batch
        self._max_size = max_size
        self._pending: list[ItemT] = []
        self._running: asyncio.Task[None] | None = None

    def drain(self) -> list[ItemT]:
        """Remove and return the pending items."""
        drained, self._pending = self._pending, []
        return drained

    def add(self, item: ItemT) -> None:
        """Add an item to the next batch."""
        self._pending.append(item)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        size = self._max_size
        try:
            while self._pending:
                batch, self._pending = self._pending[:size], self._pending[size:]
                await self._process(batch)
        finally:
            self._running = None

    async def _process(self, batch: list[ItemT]) -> None:
        try:
            await self._process_batch(batch)
        except Exception:  # noqa: BLE001 - the next batch still runs
            structlog.get_logger().exception("batch failed", items=len(batch))


DATA_ERRORS = (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)
"""Errors that a single request of a batch may have caused."""


class RequestCoalescer(Generic[RequestT, ResultT]):
    """Coalesces concurrent requests into batches and gives each caller its own result.

    A data error fails only the request that caused it: the batch is bisected until that request is
    alone. Any other error fails the batch and all pending requests, so that nobody waits for a
    second batch on a server that hangs.
    """

    def __init__(
        self,
        process_batch: Callable[[list[RequestT]], Awaitable[list[ResultT]]],
        max_size: int = 200,
    ) -> None:
        """`process_batch` returns one result for each request, in the order of the requests."""
        self._process_batch = process_batch
        self._batches: BatchQueue[tuple[RequestT, Future[ResultT]]] = BatchQueue(
            self._resolve, max_size
        )

    async def submit(self, request: RequestT) -> ResultT:
        """Return the result of a request, or raise its error."""
        future: Future[ResultT] = asyncio.get_running_loop().create_future()
        self._batches.add((request, future))
        return await future

    async def _resolve(self, batch: list[tuple[RequestT, Future[ResultT]]]) -> None:
        unresolved = list(batch)
        try:
            await self._resolve_bisecting(batch)
        except BaseException:
            unresolved += self._batches.drain()  # no later batch will process these
            raise
        finally:
            for _, future in unresolved:
                future.cancel()  # has no effect on a future that is done

    async def _resolve_bisecting(self, batch: list[tuple[RequestT, Future[ResultT]]]) -> None:
        parts = [batch]
        while parts:
            part = [(request, future) for request, future in parts.pop() if not future.done()]
            if not part:
                continue
            try:
                results = await self._process_batch([request for request, _ in part])
            except DATA_ERRORS as error:
                if len(part) == 1:
                    _set_exception(part, error)
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
            except Exception as error:  # noqa: BLE001 - the callers raise it
                _set_exception(sum(parts, part) + self._batches.drain(), error)
                return
            else:
                _set_results(part, results)


def _set_results(part: list[tuple[RequestT, Future[ResultT]]], results: list[ResultT]) -> None:
    if len(results) != len(part):
        _set_exception(part, RuntimeError(f"{len(part)} requests, {len(results)} results"))
        return
    for (_, future), result in zip(part, results, strict=True):
        if not future.done():
            future.set_result(result)


def _set_exception(part: Iterable[tuple[RequestT, Future[ResultT]]], error: Exception) -> None:
    for _, future in part:
        if not future.done():
            future.set_exception(copy_exception(error))


def copy_exception(error: ErrorT) -> ErrorT:
    """Return a copy, so that each of several callers raises an exception of its own.

    Raising an exception changes its traceback and context.
    """
    copy = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
