"""Redis behind Sentinels and as a Cluster: failover, moved slots, and wrong addresses."""

import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from redis.crc import key_slot

from referral.adapters.redis import client as client_module
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.adapters.redis.lookup_cache import RedisLookupCache, entry_key
from referral.adapters.redis.rate_limits import FixedWindowRateLimiter
from referral.adapters.redis.topology import (
    WrongTopologyError,
    check_topology,
    parse_redis_url,
)
from referral.adapters.system import SystemClock, SystemIdGenerator
from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from tests.support.redis_topologies import (
    SentinelServers,
    closing_process,
    move_slot,
    run_cluster,
    run_sentinels,
)
from tests.support.server_processes import RedisProcess
from tests.support.service_process import free_port, run_command
from tests.support.waiting import wait_for_value

EMAILS = [f"user-{number}@example.com" for number in range(50)]


@pytest.fixture(autouse=True)
def timeouts(production_timeouts: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Connections have the timeouts of production, replies wait longer on a busy machine."""
    monkeypatch.setattr(client_module, "REPLY_POLLS", 500)


@pytest.fixture
def sentinels() -> Iterator[SentinelServers]:
    """A primary with a replica and three Sentinels."""
    with run_sentinels() as servers:
        yield servers


@pytest.fixture
def cluster() -> Iterator[list[RedisProcess]]:
    """A Cluster of three nodes."""
    with run_cluster() as nodes:
        yield nodes


@pytest.fixture
async def clients() -> AsyncIterator[list[RedisClient]]:
    """Clients that are closed after the test; the test adds them."""
    made: list[RedisClient] = []
    yield made
    for client in made:
        await client.close()


def cluster_url(nodes: list[RedisProcess]) -> str:
    """Return the URL of the nodes."""
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"


def make_code(text: str = "HELLO") -> Code:
    """Make an active code."""
    now, ids = SystemClock().now(), SystemIdGenerator()
    return Code(
        ids.new(),
        ids.new(),
        text,
        now,
        now + timedelta(hours=1),
        max_uses=None,
        uses=0,
        enabled=True,
    )


async def is_cached(cache: RedisLookupCache, email: str, code: Code) -> bool:
    """Return whether the cache has an entry; if it has none, it gets one in the background."""
    loads: list[Code] = []

    async def load() -> Code:
        loads.append(code)
        return code

    assert await cache.get_or_load(email, load) == code
    return not loads


async def fill(cache: RedisLookupCache, code: Code) -> None:
    """Cache a code for all addresses."""
    for email in EMAILS:
        await wait_for_value(partial(is_cached, cache, email, code))


async def granted(limiters: list[FixedWindowRateLimiter], requests: int) -> int:
    """Return how many of the requests to each limiter are granted."""
    results = [
        await limiter.hit(RateLimitGroup.TOKEN, f"key-{number % 5}")
        for number in range(requests)
        for limiter in limiters
    ]
    return sum(result is not None and result.allowed for result in results)


async def test_new_primary_is_found(sentinels: SentinelServers, clients: list[RedisClient]) -> None:
    """After the primary was killed, with one Sentinel that hangs; entries are invalidated there."""
    client = RedisClient(sentinels.url)
    clients.append(client)
    cache, code = RedisLookupCache(client), make_code()
    await wait_for_value(partial(is_cached, cache, EMAILS[0], code))
    sentinels.primary.kill()
    assert not await cache.invalidate(EMAILS[0])
    await wait_for_value(partial(is_cached, cache, EMAILS[1], code))
    assert await cache.invalidate(EMAILS[1])
    assert not await is_cached(cache, EMAILS[0], code)


async def test_hanging_sentinel_counts_as_down(
    sentinels: SentinelServers, clients: list[RedisClient]
) -> None:
    """Also if it is the first one."""
    sentinels.sentinels[0].send_signal(signal.SIGSTOP)
    client = RedisClient(sentinels.url)
    clients.append(client)
    await wait_for_value(partial(_answers, client))
    await check_topology(parse_redis_url(sentinels.url))


async def test_lost_sentinels_change_nothing_while_the_primary_answers(
    sentinels: SentinelServers, clients: list[RedisClient]
) -> None:
    """The connections stay open."""
    client = RedisClient(sentinels.url)
    clients.append(client)
    await wait_for_value(partial(_answers, client))
    for sentinel in sentinels.sentinels:
        sentinel.kill()
    assert await _answers(client)


async def test_cluster_stores_and_invalidates_entries_on_all_nodes(
    cluster: list[RedisProcess], clients: list[RedisClient]
) -> None:
    """The entry and the marker of an address have the same slot."""
    client = RedisClient(cluster_url(cluster))
    clients.append(client)
    cache, code = RedisLookupCache(client), make_code()
    await fill(cache, code)
    for email in EMAILS:
        assert await cache.invalidate(email)
        assert await client.get_many([entry_key(email)]) == [None]


async def test_cluster_counts_limits_exactly_for_all_processes(
    cluster: list[RedisProcess], clients: list[RedisClient]
) -> None:
    """Five keys of ten requests each."""
    rates = dict.fromkeys(RateLimitGroup, UNLIMITED) | {RateLimitGroup.TOKEN: Rate.parse("10/hour")}
    clients += [RedisClient(cluster_url(cluster)) for _ in range(2)]
    limiters = [FixedWindowRateLimiter(rates, client, 1) for client in clients]
    assert await granted(limiters, 40) == 50
    assert all(client.is_available for client in clients)


async def test_moved_slot_keeps_its_entries(
    cluster: list[RedisProcess], clients: list[RedisClient]
) -> None:
    """And an entry that is deleted meanwhile is not shown again."""
    client = RedisClient(cluster_url(cluster))
    clients.append(client)
    cache, code = RedisLookupCache(client), make_code()
    await fill(cache, code)
    slots = {email: key_slot(entry_key(email)) for email in EMAILS[:2]}
    for slot in slots.values():
        node = slot * len(cluster) // 16384
        move_slot(cluster[node], cluster[(node + 1) % 3], slot)
    assert await cache.invalidate(EMAILS[0])
    assert await client.get_many([entry_key(EMAILS[0])]) == [None]
    assert await is_cached(cache, EMAILS[1], code)


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
async def test_plain_server_is_neither_sentinel_nor_cluster(
    own_redis: RedisProcess, topology: str
) -> None:
    """The error names the server."""
    url = f"redis+{topology}://127.0.0.1:{own_redis.port}{'/name' * (topology == 'sentinel')}"
    with pytest.raises(WrongTopologyError, match=f"127.0.0.1:{own_redis.port} is not a"):
        await check_topology(parse_redis_url(url))


async def test_unknown_name_is_an_error_only_if_a_sentinel_answers(
    sentinels: SentinelServers,
) -> None:
    """Hosts that cannot be reached are no reason not to start."""
    unknown = sentinels.url.replace("/referral", "/other")
    with pytest.raises(WrongTopologyError, match="knows the name 'other'"):
        await check_topology(parse_redis_url(unknown))
    await check_topology(parse_redis_url(f"redis+sentinel://127.0.0.1:{free_port()}/other"))
    await check_topology(parse_redis_url(f"redis+cluster://127.0.0.1:{free_port()}"))


def test_service_does_not_start_with_a_wrong_topology(tmp_path: Path) -> None:
    """It exits with 2 and says what is wrong."""
    with closing_process() as server:
        server.start()
        url = f"redis+cluster://:secret@127.0.0.1:{server.port}"
        result = run_command(tmp_path, "run", "--port", str(free_port()), redis_url=url)
    assert result.returncode == 2
    assert result.stderr.startswith(f"REFERRAL_REDIS_URL: 127.0.0.1:{server.port} is not a node")
    assert "secret" not in result.stderr


async def _answers(client: RedisClient) -> bool:
    try:
        await client.get_many([b"a", b"b"])
    except RedisUnavailable:
        return False
    return True
