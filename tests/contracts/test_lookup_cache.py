"""The port `LookupCache`: in memory, in Redis, and memory in front of Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from referral.adapters.memory_cache import MemoryLookupCache
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.adapters.redis.lookup_cache import RedisLookupCache, entry_key
from referral.core.entities.codes import Code
from referral.core.errors import Unavailable
from referral.core.ports.caching import LookupCache
from tests.support.waiting import wait_for_value

T = TypeVar("T")

CACHE_KINDS = ("memory", "redis", "memory before redis")


def new_code(**lifetime: float) -> Code:
    """Return a new active code."""
    now = datetime.now(UTC)
    expires_at = now + timedelta(**lifetime or {"hours": 1})
    return Code(uuid4(), uuid4(), uuid4().hex[:8], now, expires_at, None, 0, enabled=True)


class CountingLookup:
    """A look-up in the database that counts its calls."""

    def __init__(self, code: Code | None) -> None:
        self.code = code
        self.calls = 0

    async def __call__(self) -> Code | None:
        self.calls += 1
        return self.code


@pytest.fixture
def key() -> str:
    """A new e-mail address."""
    return f"{uuid4().hex}@example.com"


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[RedisClient]:
    """A connection to Redis."""
    server = RedisClient(redis_url)
    yield server
    await server.close()


@pytest.fixture(params=CACHE_KINDS)
def cache(request: pytest.FixtureRequest, server: RedisClient) -> LookupCache:
    """The cache under test."""
    if request.param == "memory":
        return MemoryLookupCache()
    redis_cache = RedisLookupCache(server)
    return redis_cache if request.param == "redis" else MemoryLookupCache(redis_cache)


async def wait_until_cached(cache: LookupCache, key: str, code: Code | None) -> None:
    """Wait until the cache returns `code` without a load."""

    async def is_cached() -> bool:
        load = CountingLookup(code)
        return await cache.get_or_load(key, load) == code and not load.calls

    await wait_for_value(is_cached)


@pytest.mark.parametrize("code", [new_code(), None], ids=["a code", "no code"])
async def test_loaded_value_is_cached(cache: LookupCache, key: str, code: Code | None) -> None:
    """Codes and misses are returned without another load, equal in every field."""
    assert await cache.get_or_load(key, CountingLookup(code)) == code
    await wait_until_cached(cache, key, code)


async def test_invalidated_value_is_loaded_again(cache: LookupCache, key: str) -> None:
    """The first value after an invalidation is the new one."""
    await cache.get_or_load(key, CountingLookup(new_code()))
    await wait_until_cached(cache, key, await cache.get_or_load(key, CountingLookup(None)))
    await cache.invalidate(key)
    now = new_code()
    assert await cache.get_or_load(key, CountingLookup(now)) == now
    await wait_until_cached(cache, key, now)


async def test_load_from_before_an_invalidation_is_not_cached(cache: LookupCache, key: str) -> None:
    """A load that runs during an invalidation never caches the old value."""
    old, new, load_started, release_load = new_code(), new_code(), asyncio.Event(), asyncio.Event()

    async def load_slowly() -> Code | None:
        load_started.set()
        await release_load.wait()
        return old

    for _ in range(3):
        pending_load = asyncio.create_task(cache.get_or_load(key, load_slowly))
        await load_started.wait()
        await cache.invalidate(key)
        release_load.set()
        assert await pending_load == old
        assert await cache.get_or_load(key, CountingLookup(new)) == new
        await wait_until_cached(cache, key, new)
        load_started.clear()
        release_load.clear()
        await cache.invalidate(key)


async def test_error_is_not_cached(cache: LookupCache, key: str) -> None:
    """The next request loads again."""

    async def fail() -> Code | None:
        raise Unavailable

    with pytest.raises(Unavailable):
        await cache.get_or_load(key, fail)
    code = new_code()
    assert await cache.get_or_load(key, CountingLookup(code)) == code


async def test_concurrent_requests_get_their_own_values(cache: LookupCache) -> None:
    """Of ten thousand requests, a third of them cancelled, none gets the value of another key."""
    codes = {f"{uuid4().hex}@example.com": new_code() for _ in range(1000)}
    for email, code in codes.items():
        await cache.get_or_load(email, CountingLookup(code))
    requested_keys = [email for email in codes for _ in range(10)]
    tasks = [
        asyncio.create_task(cache.get_or_load(key, CountingLookup(codes[key])))
        for key in requested_keys
    ]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            asyncio.get_running_loop().call_soon(task.cancel)
        if number % 50 == 0:
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    paired = [(key, result) for key, result in zip(requested_keys, results, strict=True) if result]
    assert all(isinstance(a, asyncio.CancelledError) or a == codes[key] for key, a in paired)
    assert sum(isinstance(result, Code) for _, result in paired) >= 6000


async def test_concurrent_requests_share_one_load(key: str) -> None:
    """Five hundred requests for one key load once, also if the first one is cancelled."""
    cache, load, release_load = MemoryLookupCache(), CountingLookup(new_code()), asyncio.Event()

    async def load_slowly() -> Code | None:
        await release_load.wait()
        return await load()

    tasks = [asyncio.create_task(cache.get_or_load(key, load_slowly)) for _ in range(500)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    release_load.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [load.code] * 499
    assert load.calls == 1


async def test_requests_that_share_a_failed_load_get_separate_errors(key: str) -> None:
    """With the cause; raising one error leaves no traceback in another."""

    async def fail() -> Code | None:
        raise Unavailable("away") from ConnectionError()

    cache = MemoryLookupCache()
    errors = await asyncio.gather(
        *(cache.get_or_load(key, fail) for _ in range(3)), return_exceptions=True
    )
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, Unavailable)
        assert error.detail == "away"
        assert isinstance(error.__cause__, ConnectionError)


async def test_memory_cache_expires_within_a_second(key: str) -> None:
    """A change in another process is visible after a second at most."""
    time = 100.0
    cache = MemoryLookupCache(now=lambda: time)
    await cache.get_or_load(key, CountingLookup(new_code()))
    time += 0.95
    assert await cache.get_or_load(key, CountingLookup(None)) is None


async def test_processes_share_the_redis_cache(server: RedisClient, key: str) -> None:
    """One process reads what another cached, and not what another invalidated."""
    one, two, code = RedisLookupCache(server), RedisLookupCache(server), new_code()
    await one.get_or_load(key, CountingLookup(code))
    await wait_until_cached(two, key, code)
    await one.invalidate(key)
    assert await two.get_or_load(key, CountingLookup(None)) is None


@pytest.mark.parametrize("lifetime", [5, 3600])
async def test_redis_entry_expires_with_the_code_or_within_half_a_minute(
    server: RedisClient, key: str, lifetime: int
) -> None:
    """An entry expires with its code, and before a lost invalidation could matter."""
    cache, code = RedisLookupCache(server), new_code(seconds=lifetime)
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    assert 0 < await server.redis.pttl(entry_key(key)) <= min(lifetime, 25) * 1000


async def test_redis_entry_holds_its_own_expiry(server: RedisClient, key: str) -> None:
    """An entry that Redis failed to expire is not used."""
    time = datetime.now(UTC).timestamp()
    cache, code = RedisLookupCache(server, now=lambda: time), new_code()
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    await server.redis.persist(entry_key(key))
    time += 25
    assert await cache.get_or_load(key, CountingLookup(None)) is None


@pytest.mark.parametrize("garbage", [b"", b"x", b"\xff\x00", b"\x92\xc0\xc0", "list"])
async def test_unreadable_redis_entry_is_a_miss(
    server: RedisClient, key: str, garbage: bytes | str
) -> None:
    """The value is loaded."""
    cache, code = RedisLookupCache(server), new_code()
    if isinstance(garbage, str):
        await server.redis.rpush(entry_key(key), garbage)
    else:
        await server.redis.set(entry_key(key), garbage)
    assert await cache.get_or_load(key, CountingLookup(code)) == code
    assert server.is_available


async def test_redis_holds_no_email(server: RedisClient, key: str) -> None:
    """Neither keys nor values reveal the owner of a code."""
    cache, code = RedisLookupCache(server), new_code()
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    local_part = key.partition("@")[0].encode()
    assert local_part not in entry_key(key)
    assert local_part not in (await server.redis.get(entry_key(key)) or b"")
    for name in await server.redis.keys("*"):
        assert local_part not in name


async def test_invalidation_marker_outlives_an_expired_entry(server: RedisClient, key: str) -> None:
    """A load from before the change is not cached, even after a newer entry has expired."""
    old, new, load_started, release_load = new_code(), new_code(), asyncio.Event(), asyncio.Event()

    async def load_slowly() -> Code | None:
        load_started.set()
        await release_load.wait()
        return old

    loading, changing, reading = (RedisLookupCache(server) for _ in range(3))
    pending_load = asyncio.create_task(loading.get_or_load(key, load_slowly))
    await load_started.wait()
    await changing.invalidate(key)
    await reading.get_or_load(key, CountingLookup(None))
    await wait_until_cached(reading, key, None)
    await server.redis.delete(entry_key(key))  # as if it had expired
    release_load.set()
    assert await pending_load == old
    assert await reading.get_or_load(key, CountingLookup(new)) == new
    await wait_until_cached(reading, key, new)


async def test_invalidation_that_redis_rejects_is_compensated(
    server: RedisClient, key: str
) -> None:
    """The process does not read that key for a minute, after which every old entry has expired."""
    time = datetime.now(UTC).timestamp()
    cache, old, new = RedisLookupCache(server, now=lambda: time), new_code(), new_code()
    await cache.get_or_load(key, CountingLookup(old))
    await wait_until_cached(cache, key, old)
    await server.redis.config_set("maxmemory", 1)
    try:
        assert not await cache.invalidate(key)
    finally:
        await server.redis.config_set("maxmemory", 0)
    assert await cache.get_or_load(key, CountingLookup(new)) == new
    time += 61
    assert await cache.get_or_load(key, CountingLookup(new)) == new
    await wait_until_cached(cache, key, new)


class UnreachableRedis(RedisClient):
    """A server that fails every command, and records the recovery hooks."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.repeats: list[Callable[[], Awaitable[None]]] = []

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:  # noqa: ARG002
        raise RedisUnavailable

    def add_recovery_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        self.repeats.append(hook)


async def test_invalidation_during_the_recovery_is_repeated(
    server: RedisClient, redis_url: str
) -> None:
    """Until then no value is read from Redis."""
    keys = [f"{uuid4().hex}@example.com" for _ in range(2_000)]
    for email in keys:
        await server.redis.set(entry_key(email), b"old", ex=60)
    unreachable = UnreachableRedis(redis_url)
    cache = RedisLookupCache(unreachable)
    for email in keys[:-1]:
        assert not await cache.invalidate(email)
    (recovery_hook,) = unreachable.repeats
    recovery = asyncio.ensure_future(recovery_hook())
    await asyncio.sleep(0)
    assert not await cache.invalidate(keys[-1])
    await recovery
    assert await server.redis.exists(*map(entry_key, keys)) == 0
    await unreachable.close()


async def test_recovery_repeats_the_last_minute_of_invalidations(
    server: RedisClient, redis_url: str
) -> None:
    """Older entries have expired by themselves."""
    time = 0.0
    unreachable = UnreachableRedis(redis_url)
    cache = RedisLookupCache(unreachable, now=lambda: time)
    keys = [f"{uuid4().hex}@example.com" for _ in range(100)]
    for email in keys:
        await server.redis.set(entry_key(email), b"old", ex=60)
        time += 1
        assert not await cache.invalidate(email)
    await unreachable.repeats[0]()
    assert await server.redis.exists(*map(entry_key, keys)) == 40
    await unreachable.close()
