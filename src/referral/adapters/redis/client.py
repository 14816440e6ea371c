"""Redis: one way in, with short waits, and without when it does not answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from referral.adapters.observability.samples import Sample
from referral.core.errors import Unavailable

T = TypeVar("T")

LOOKS, LOOK_SECONDS = 8, 0.01
"""How often one looks for an answer, and how long each time; see `_patiently`."""

SOCKET_SECONDS = 0.5
"""The client's own limit, behind ours; the name of the server is looked up within it."""

CONNECTIONS = 10
PROBE_SECONDS = 0.5
CLOSING_SECONDS = 1


class RedisGone(Exception):
    """There is no answer from Redis to be had now."""


class RedisServer:
    """A server that everybody leaves alone from the first failure on, until it answers a probe.

    Whoever comes when all connections are in use waits for one: a burst is no failure. Only
    `ResponseError`, which is about a single key, leaves the way open.
    """

    name = "redis"

    def __init__(self, url: str) -> None:
        """Take a `redis://` URL; connects with the first question."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=None,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            # Once more, on a new connection: the server may have closed one that was idle.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self.client: Redis = Redis(connection_pool=pool)
        self._gate = asyncio.Semaphore(CONNECTIONS)
        self._recovery: asyncio.Task[None] | None = None
        self._recoveries = 0
        self._on_return: list[Callable[[], Awaitable[None]]] = []

    @property
    def answers(self) -> bool:
        """Whether it did, the last time."""
        return self._recovery is None

    def when_back(self, action: Callable[[], Awaitable[None]]) -> None:
        """Have something done as soon as the server answers again, before anybody else asks."""
        self._on_return.append(action)

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        """Return the answer, or raise `RedisGone`."""
        async with self._gate:
            if not self.answers:
                raise RedisGone
            recoveries = self._recoveries
            try:
                return await _patiently(question(self.client))
            except ResponseError as error:
                raise RedisGone from error
            except (RedisError, OSError, TimeoutError) as error:
                # What was asked before a recovery tells nothing about the server after it.
                if recoveries == self._recoveries:
                    self._lose(error)
                raise RedisGone from error

    async def check(self) -> str:
        """See the port `Part`."""
        try:
            await self.ask(lambda client: client.ping())
        except RedisGone as error:
            raise Unavailable from error
        return "ok"

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_breaker_open", (self.name,), not self.answers)

    async def close(self) -> None:
        """End the connections, those in use after their answer."""
        if self._recovery is not None:
            self._recovery.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                for _ in range(CONNECTIONS):
                    await self._gate.acquire()
        await self.client.connection_pool.aclose()

    def _lose(self, error: Exception) -> None:
        if self._recovery is None:
            structlog.get_logger().warning("redis does not answer", cause=repr(error))
            self._recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        while True:
            if await self._is_back():
                break
            await asyncio.sleep(PROBE_SECONDS)
        self._recovery = None
        self._recoveries += 1
        structlog.get_logger().info("redis answers again")

    async def _is_back(self) -> bool:
        try:
            # Connections from before may be dead, and whoever got one would find the server gone.
            await self.client.connection_pool.disconnect(inuse_connections=False)
            await _patiently(self.client.ping())
            for action in self._on_return:
                await action()
        except (RedisError, OSError, TimeoutError):
            return False
        except Exception:  # noqa: BLE001 - without an end of this task Redis is never used again
            structlog.get_logger().exception("recovery of redis failed, and goes on")
            return False
        return True


async def _patiently(answer: Awaitable[T]) -> T:
    """Wait for an answer 80 ms long, or eight rounds of an event loop that is too busy to read it:
    a burst of requests must not look like a server that is gone.
    """
    task = asyncio.ensure_future(answer)
    try:
        for _ in range(LOOKS):
            done, _ = await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if done:
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
