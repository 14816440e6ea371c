"""The Redis client: short timeouts, and a circuit breaker while the server does not answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import TypeVar, cast

import structlog
from opentelemetry.trace import SpanKind
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from referral.adapters.observability.samples import Sample
from referral.adapters.observability.tracing import span
from referral.adapters.redis.topology import (
    MAX_CONNECTIONS,
    close_redis,
    make_redis,
    parse_redis_url,
)
from referral.core.errors import Unavailable

T = TypeVar("T")

REPLY_POLLS, REPLY_POLL_SECONDS = 8, 0.01
"""The time limit of a command, in rounds of the event loop; see `_wait_for_reply`."""

PROBE_SECONDS = 3.0
"""The time limit of a probe: it may have to ask several Sentinels or nodes, of which some hang."""

PROBE_KEY = "referral:probe"
PROBE_INTERVAL_SECONDS = 0.5
CLOSE_TIMEOUT_SECONDS = 1


FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
"""The errors of a server that does not answer; redis-py's of clusters is none of its others."""


class RedisUnavailable(Exception):
    """Redis did not answer the command, or is known not to answer at present."""


class RedisClient:
    """Sends commands to Redis, and none after a failure until the server answers a probe.

    Commands wait while all connections are in use: a burst is not a failure. A `ResponseError`
    fails one command only, since it concerns one key.
    """

    name = "redis"

    def __init__(self, url: str) -> None:
        """The first command connects; `parse_redis_url` describes the URL."""
        self.redis = make_redis(parse_redis_url(url))
        self._permits = asyncio.Semaphore(MAX_CONNECTIONS)
        self._recovery_task: asyncio.Task[None] | None = None
        self._recovery_count = 0
        self._recovery_hooks: list[Callable[[], Awaitable[None]]] = []

    @property
    def is_available(self) -> bool:
        """Whether the last command or probe was answered."""
        return self._recovery_task is None

    def add_recovery_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Add a function that runs when the server answers again, before any command is sent."""
        self._recovery_hooks.append(hook)

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return the reply to a command, or raise `RedisUnavailable`."""
        async with self._permits:
            if not self.is_available:
                raise RedisUnavailable
            recovery_count = self._recovery_count
            try:
                return await _wait_for_reply(command(self.redis))
            except ResponseError as error:
                raise RedisUnavailable from error
            except FAILURES as error:
                # A command from before a recovery says nothing about the server after it.
                if recovery_count == self._recovery_count:
                    self._mark_unavailable(error)
                raise RedisUnavailable from error

    async def check(self) -> str:
        """Send a read; raises `Unavailable` without a reply."""
        try:
            await self.execute(_probe)
        except RedisUnavailable as error:
            raise Unavailable from error
        return "ok"

    def samples(self) -> Iterator[Sample]:
        """Return whether the circuit breaker is open."""
        yield Sample("referral_breaker_open", (self.name,), not self.is_available)

    async def close(self) -> None:
        """Close the connections; those in use get one second to finish."""
        if self._recovery_task is not None:
            self._recovery_task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                for _ in range(MAX_CONNECTIONS):
                    await self._permits.acquire()
        await close_redis(self.redis)

    async def get_many(self, names: list[bytes]) -> list[bytes | None]:
        """Return the values of keys, by one command, or in a Cluster by one to each node."""
        if isinstance(self.redis, RedisCluster):
            return await self.execute(lambda redis: _get_by_pipeline(redis, names))
        reply = await self.execute(lambda redis: redis.mget(names))
        return cast("list[bytes | None]", reply)

    async def _disconnect(self) -> None:
        if isinstance(self.redis, RedisCluster):
            await self.redis.aclose()
        else:
            await self.redis.connection_pool.disconnect(inuse_connections=False)

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
            # Connections from before the failure may be dead: a command would fail on them.
            await self._disconnect()
            async with asyncio.timeout(PROBE_SECONDS):
                await _probe(self.redis)
            for hook in self._recovery_hooks:
                await hook()
        except FAILURES:
            return False
        except Exception:  # noqa: BLE001 - if this task ended, Redis would never be used again
            structlog.get_logger().exception("redis recovery failed, retrying")
            return False
        return True


class TracedRedisClient(RedisClient):
    """A client that records each command as a span."""

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Execute the command within a span."""
        with span("redis", SpanKind.CLIENT, {"db.system.name": "redis"}):
            return await super().execute(command)


async def _probe(redis: Redis) -> object:
    """Read a key that does not exist. A PING would ask several nodes of a Cluster."""
    return await redis.get(PROBE_KEY)


async def _get_by_pipeline(redis: Redis, names: list[bytes]) -> list[bytes | None]:
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.get(name)
    return await pipe.execute()


async def _wait_for_reply(reply: Awaitable[T]) -> T:
    """Return the reply, or raise `TimeoutError` after 80 ms.

    The limit is eight waits of 10 ms instead of one of 80 ms: a busy event loop has eight rounds to
    read the reply, so a burst of requests does not look like a server that does not answer.
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
