"""The recovery of the Redis client after an outage."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from referral.adapters.redis import client as redis
from referral.adapters.redis import topology
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.redis.topology import MAX_CONNECTIONS
from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from tests.faults.proxy import Proxy
from tests.support.server_processes import RedisProcess
from tests.support.service_process import free_port
from tests.support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use long timeouts, so that a busy machine is not taken for an outage."""
    monkeypatch.setattr(redis, "REPLY_POLLS", 1000)
    monkeypatch.setattr(topology, "SOCKET_TIMEOUT_SECONDS", 10)


@pytest.fixture
async def server(own_redis: RedisProcess, patience: None) -> AsyncIterator[RedisClient]:  # noqa: ARG001
    """A client of a Redis that the test may restart, with all connections open."""
    server = RedisClient(own_redis.url)
    await open_all_connections(server)
    yield server
    await server.close()


async def open_all_connections(server: RedisClient) -> None:
    """Open every connection of the pool, and leave it idle."""
    connections = [server.redis.client() for _ in range(MAX_CONNECTIONS)]
    for connection in connections:
        await connection.initialize()
    for connection in connections:
        await connection.aclose()


async def ping_on_all_connections(server: RedisClient) -> None:
    """Send a ping on every connection at the same time."""
    barrier = asyncio.Barrier(MAX_CONNECTIONS)

    async def ping(client: Redis) -> None:
        async with client.client() as own:
            await barrier.wait()
            await own.ping()

    await asyncio.gather(*(server.execute(ping) for _ in range(MAX_CONNECTIONS)))


async def fail(_: Redis) -> None:
    """Fail as with a dead server."""
    raise ConnectionResetError


async def test_dead_idle_connections_are_replaced(
    own_redis: RedisProcess, server: RedisClient
) -> None:
    """After a restart of Redis no request fails, and rate limits count in Redis."""
    rates = dict.fromkeys(RateLimitGroup, UNLIMITED) | {
        RateLimitGroup.LOOKUP: Rate.parse("10/hour")
    }
    limits = FixedWindowRateLimiter(rates, server, processes=1)
    own_redis.kill()
    own_redis.start()
    with capture_logs() as logs:
        results = await asyncio.gather(
            *(limits.hit(RateLimitGroup.LOOKUP, "ann") for _ in range(22))
        )
        await ping_on_all_connections(server)
    assert sum(result is not None and result.allowed for result in results) == 10
    assert server.is_available
    assert logs == []


async def test_connections_of_before_an_outage_are_not_reused(
    own_redis: RedisProcess, server: RedisClient
) -> None:
    """After the recovery no old connection reopens the breaker."""
    own_redis.kill()
    with pytest.raises(RedisUnavailable):
        await server.execute(lambda client: client.ping())
    own_redis.start()
    await wait_until(lambda: server.is_available)
    with capture_logs() as logs:
        await ping_on_all_connections(server)
    assert server.is_available
    assert logs == []


@pytest.mark.usefixtures("patience")
async def test_silent_connections_are_not_reused(
    own_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router may drop connections without an error; each would time out."""
    port = free_port()
    proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", own_redis.port))
    proxy.start()
    server = RedisClient(f"redis://127.0.0.1:{port}/0")
    await open_all_connections(server)
    proxy.blackhole_open_connections()
    with monkeypatch.context() as patched:
        patched.setattr(redis, "REPLY_POLLS", 8)
        with pytest.raises(RedisUnavailable):
            await server.execute(lambda client: client.ping())
    await wait_until(lambda: server.is_available)
    await ping_on_all_connections(server)
    assert server.is_available
    await server.close()
    proxy.stop()


async def test_late_failure_does_not_reopen_the_breaker(
    server: RedisClient,
) -> None:
    """A request from before the recovery says nothing about the server now."""
    started, recovered = asyncio.Event(), asyncio.Event()

    async def fail_late(_: Redis) -> None:
        started.set()
        await recovered.wait()
        raise ConnectionResetError

    late = asyncio.create_task(server.execute(fail_late))
    await started.wait()
    with pytest.raises(RedisUnavailable):
        await server.execute(fail)
    assert not server.is_available
    await wait_until(lambda: server.is_available)
    recovered.set()
    with pytest.raises(RedisUnavailable):
        await late
    assert server.is_available


async def test_recovery_survives_an_unexpected_error(server: RedisClient) -> None:
    """The error is logged, and the recovery continues."""
    outcomes = [LookupError(), None]

    async def fail_once() -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    server.add_recovery_hook(fail_once)
    with capture_logs() as logs:
        with pytest.raises(RedisUnavailable):
            await server.execute(fail)
        await wait_until(lambda: server.is_available)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("redis does not answer", "warning"),
        ("redis recovery failed, retrying", "error"),
        ("redis answers again", "info"),
    ]
    assert await wait_for_value(lambda: server.execute(lambda client: client.ping()))
