"""How the way to Redis is opened again, and what does not close it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from referral.adapters.redis import client as redis
from referral.adapters.redis.client import MAX_CONNECTIONS, RedisClient, RedisUnavailable
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from tests.faults.proxy import Proxy
from tests.support.server_processes import RedisProcess
from tests.support.service_process import free_port
from tests.support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long for an answer, since a busy machine is no dead server."""
    monkeypatch.setattr(redis, "LOOKS", 1000)
    monkeypatch.setattr(redis, "SOCKET_SECONDS", 10)


@pytest.fixture
async def server(own_redis: RedisProcess, patience: None) -> AsyncIterator[RedisClient]:  # noqa: ARG001
    """The way to a Redis that the test may restart, with all its connections made."""
    server = RedisClient(own_redis.url)
    await open_all_connections(server)
    yield server
    await server.close()


async def open_all_connections(server: RedisClient) -> None:
    """Have every connection made, and left idle."""
    every = [server.client.client() for _ in range(MAX_CONNECTIONS)]
    for one in every:
        await one.initialize()
    for one in every:
        await one.aclose()


async def ask_on_all_connections(server: RedisClient) -> None:
    """Put as many questions at once as there are connections."""
    together = asyncio.Barrier(MAX_CONNECTIONS)

    async def ask(client: Redis) -> None:
        async with client.client() as own:
            await together.wait()
            await own.ping()

    await asyncio.gather(*(server.execute(ask) for _ in range(MAX_CONNECTIONS)))


async def fail(_: Redis) -> None:
    """Answer as a server that is gone."""
    raise ConnectionResetError


async def test_connections_that_died_while_they_were_idle_are_replaced(
    own_redis: RedisProcess, server: RedisClient
) -> None:
    """After a plain restart of Redis nobody is sent away, and limits go on counting there."""
    rates = dict.fromkeys(RateLimitGroup, UNLIMITED) | {
        RateLimitGroup.LOOKUP: Rate.parse("10/hour")
    }
    limits = FixedWindowRateLimiter(rates, server, processes=1)
    own_redis.kill()
    own_redis.start()
    with capture_logs() as logs:
        taken = await asyncio.gather(*(limits.hit(RateLimitGroup.LOOKUP, "ann") for _ in range(22)))
        await ask_on_all_connections(server)
    assert sum(one is not None and one.allowed for one in taken) == 10
    assert server.is_available
    assert logs == []


async def test_dead_connections_do_not_close_the_way_after_a_recovery(
    own_redis: RedisProcess, server: RedisClient
) -> None:
    """None of those from before the outage is used again."""
    own_redis.kill()
    with pytest.raises(RedisUnavailable):
        await server.execute(lambda client: client.ping())
    own_redis.start()
    await wait_until(lambda: server.is_available)
    with capture_logs() as logs:
        await ask_on_all_connections(server)
    assert server.is_available
    assert logs == []


@pytest.mark.usefixtures("patience")
async def test_connections_that_went_silent_in_an_outage_are_not_used_after_it(
    own_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a router that forgot them: no error tells of it, only a time-out each."""
    port = free_port()
    proxy = Proxy(("127.0.0.1", port), ("127.0.0.1", own_redis.port))
    proxy.start()
    server = RedisClient(f"redis://127.0.0.1:{port}/0")
    await open_all_connections(server)
    proxy.blackhole_open_connections()
    with monkeypatch.context() as hasty:
        hasty.setattr(redis, "LOOKS", 8)
        with pytest.raises(RedisUnavailable):
            await server.execute(lambda client: client.ping())
    await wait_until(lambda: server.is_available)
    await ask_on_all_connections(server)
    assert server.is_available
    await server.close()
    proxy.stop()


async def test_what_was_asked_before_a_recovery_does_not_close_the_way(
    server: RedisClient,
) -> None:
    """Its failure says nothing about the server since."""
    recovered = asyncio.Event()

    async def fail_late(_: Redis) -> None:
        await recovered.wait()
        raise ConnectionResetError

    late = asyncio.create_task(server.execute(fail_late))
    await asyncio.sleep(0)
    with pytest.raises(RedisUnavailable):
        await server.execute(fail)
    assert not server.is_available
    await wait_until(lambda: server.is_available)
    recovered.set()
    with pytest.raises(RedisUnavailable):
        await late
    assert server.is_available


async def test_the_recovery_survives_what_it_did_not_expect(server: RedisClient) -> None:
    """It is logged, and tried again; otherwise Redis would not be used until the next start."""
    ends = [LookupError(), None]

    async def repeat() -> None:
        if (error := ends.pop(0)) is not None:
            raise error

    server.add_recovery_hook(repeat)
    with capture_logs() as logs:
        with pytest.raises(RedisUnavailable):
            await server.execute(fail)
        await wait_until(lambda: server.is_available)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("redis does not answer", "warning"),
        ("recovery of redis failed, and goes on", "error"),
        ("redis answers again", "info"),
    ]
    assert await wait_for_value(lambda: server.execute(lambda client: client.ping()))
