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

REPLY_POLLS, REPLY_POLL_SECONDS = 8, 0.01
"""How often one looks for an answer, and how long each time; see `_patiently`."""

SOCKET_TIMEOUT_SECONDS = 0.5
"""The client's own limit, behind ours; the name of the server is looked up within it."""

MAX_CONNECTIONS = 10
PROBE_INTERVAL_SECONDS = 0.5
CLOSE_TIMEOUT_SECONDS = 1


class RedisUnavailable(Exception):
    """There is no answer from Redis to be had now."""


class RedisClient:
    """A server that everybody leaves alone from the first failure on, until it answers a probe.

    Whoever comes when all connections are in use waits for one: a burst is no failure. Only
    `ResponseError`, which is about a single key, leaves the way open.
    """

    name = "redis"

    def __init__(self, url: str) -> None:
        """Take a `redis://` URL; connects with the first question."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            # Once more, on a new connection: the server may have closed one that was idle.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self.client: Redis = Redis(connection_pool=pool)
        self._permits = asyncio.Semaphore(MAX_CONNECTIONS)
        self._recovery_task: asyncio.Task[None] | None = None
        self._recovery_count = 0
        self._recovery_hooks: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_available(self) -> bool:
        """Whether it did, the last time."""
        return self._recovery_task is None

    def add_recovery_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Have something done as soon as the server answers again, before anybody else asks."""
        self._recovery_hooks.append(hook)

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return the answer, or raise `RedisGone`."""
        async with self._permits:
            if not self.is_available:
                raise RedisUnavailable
            recovery_count = self._recovery_count
            try:
                return await _wait_for_reply(command(self.client))
            except ResponseError as error:
                raise RedisUnavailable from error
            except (RedisError, OSError, TimeoutError) as error:
                # What was asked before a recovery tells nothing about the server after it.
                if recovery_count == self._recovery_count:
                    self._mark_unavailable(error)
                raise RedisUnavailable from error

    async def check(self) -> str:
        """See the port `Part`."""
        try:
            await self.execute(lambda client: client.ping())
        except RedisUnavailable as error:
            raise Unavailable from error
        return "ok"

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_breaker_open", (self.name,), not self.is_available)

    async def close(self) -> None:
        """End the connections, those in use after their answer."""
        if self._recovery_task is not None:
            self._recovery_task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                for _ in range(MAX_CONNECTIONS):
                    await self._permits.acquire()
        await self.client.connection_pool.aclose()

    def _mark_unavailable(self, error: Exception) -> None:
        if self._recovery_task is None:
            structlog.get_logger().warning("redis does not answer", cause=repr(error))
            self._recovery_task = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        while True:
            if await self._try_recovery():
                break
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        self._recovery_task = None
        self._recovery_count += 1
        structlog.get_logger().info("redis answers again")

    async def _try_recovery(self) -> bool:
        try:
            # Connections from before may be dead, and whoever got one would find the server gone.
            await self.client.connection_pool.disconnect(inuse_connections=False)
            await _wait_for_reply(self.client.ping())
            for hook in self._recovery_hooks:
                await hook()
        except (RedisError, OSError, TimeoutError):
            return False
        except Exception:  # noqa: BLE001 - without an end of this task Redis is never used again
            structlog.get_logger().exception("recovery of redis failed, and goes on")
            return False
        return True


async def _wait_for_reply(reply: Awaitable[T]) -> T:
    """Wait for an answer 80 ms long, or eight rounds of an event loop that is too busy to read it:
    a burst of requests must not look like a server that is gone.
    """
    task = asyncio.ensure_future(reply)
    try:
        for _ in range(REPLY_POLLS):
            done, _ = await asyncio.wait({task}, timeout=REPLY_POLL_SECONDS)
            if done:
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
