"""What every cache of look-ups keeps to: in the process, in Redis, and one before the other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from referral.adapters.in_memory import MemoryLookupCache
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.adapters.redis.lookup_cache import RedisLookupCache, entry_key
from referral.core.entities.codes import Code
from referral.core.errors import Unavailable
from referral.core.ports.caching import LookupCache
from tests.support.waiting import wait_for_value

T = TypeVar("T")

CACHE_KINDS = ("memory", "redis", "memory before redis")


def new_code(**lifetime: float) -> Code:
    """Make up a code that is in force."""
    now = datetime.now(UTC)
    ends = now + timedelta(**lifetime or {"hours": 1})
    return Code(uuid4(), uuid4(), uuid4().hex[:8], now, ends, None, 0, enabled=True)


class CountingLookup:
    """A database that counts its questions."""

    def __init__(self, code: Code | None) -> None:
        self.code = code
        self.calls = 0

    async def __call__(self) -> Code | None:
        self.calls += 1
        return self.code


@pytest.fixture
def key() -> str:
    """An address that no other test uses."""
    return f"{uuid4().hex}@example.com"


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[RedisClient]:
    """The way to Redis."""
    server = RedisClient(redis_url)
    yield server
    await server.close()


@pytest.fixture(params=CACHE_KINDS)
def cache(request: pytest.FixtureRequest, server: RedisClient) -> LookupCache:
    """Each of the caches."""
    if request.param == "memory":
        return MemoryLookupCache()
    behind = RedisLookupCache(server)
    return behind if request.param == "redis" else MemoryLookupCache(behind)


async def wait_until_cached(cache: LookupCache, key: str, code: Code | None) -> None:
    """Wait until the cache answers with `code` and asks nobody."""

    async def unasked() -> bool:
        find = CountingLookup(code)
        return await cache.get_or_load(key, find) == code and not find.calls

    await wait_for_value(unasked)


@pytest.mark.parametrize("code", [new_code(), None], ids=["a code", "no code"])
async def test_what_was_found_is_remembered(
    cache: LookupCache, key: str, code: Code | None
) -> None:
    """Codes and their absence are told again without a question, and equal in every field."""
    assert await cache.get_or_load(key, CountingLookup(code)) == code
    await wait_until_cached(cache, key, code)


async def test_what_was_cleared_is_found_anew(cache: LookupCache, key: str) -> None:
    """After a clear the first answer is the new one."""
    await cache.get_or_load(key, CountingLookup(new_code()))
    await wait_until_cached(cache, key, await cache.get_or_load(key, CountingLookup(None)))
    await cache.invalidate(key)
    now = new_code()
    assert await cache.get_or_load(key, CountingLookup(now)) == now
    await wait_until_cached(cache, key, now)


async def test_a_find_from_before_a_clear_is_not_remembered(cache: LookupCache, key: str) -> None:
    """A question on its way while a change is cleared never puts the old answer back."""
    old, new, on_its_way, go_on = new_code(), new_code(), asyncio.Event(), asyncio.Event()

    async def find_slowly() -> Code | None:
        on_its_way.set()
        await go_on.wait()
        return old

    for _ in range(3):
        slow = asyncio.create_task(cache.get_or_load(key, find_slowly))
        await on_its_way.wait()
        await cache.invalidate(key)
        go_on.set()
        assert await slow == old
        assert await cache.get_or_load(key, CountingLookup(new)) == new
        await wait_until_cached(cache, key, new)
        on_its_way.clear()
        go_on.clear()
        await cache.invalidate(key)


async def test_an_error_is_not_remembered(cache: LookupCache, key: str) -> None:
    """A database that does not answer is asked again the next time."""

    async def fail() -> Code | None:
        raise Unavailable

    with pytest.raises(Unavailable):
        await cache.get_or_load(key, fail)
    code = new_code()
    assert await cache.get_or_load(key, CountingLookup(code)) == code


async def test_many_questions_get_each_its_own_answer(cache: LookupCache) -> None:
    """Ten thousand requests, a third of them cancelled midway: nobody gets another's answer."""
    codes = {f"{uuid4().hex}@example.com": new_code() for _ in range(1000)}
    for address, code in codes.items():
        await cache.get_or_load(address, CountingLookup(code))
    asked = [address for address in codes for _ in range(10)]
    tasks = [
        asyncio.create_task(cache.get_or_load(key, CountingLookup(codes[key]))) for key in asked
    ]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            asyncio.get_running_loop().call_soon(task.cancel)
        if number % 50 == 0:
            await asyncio.sleep(0)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    given = [(key, answer) for key, answer in zip(asked, answers, strict=True) if answer]
    assert all(isinstance(a, asyncio.CancelledError) or a == codes[key] for key, a in given)
    assert sum(isinstance(answer, Code) for _, answer in given) >= 6000


async def test_one_question_is_shared(key: str) -> None:
    """Five hundred requests for an address that was just forgotten ask once, whoever gives up."""
    cache, find, go_on = MemoryLookupCache(), CountingLookup(new_code()), asyncio.Event()

    async def find_slowly() -> Code | None:
        await go_on.wait()
        return await find()

    tasks = [asyncio.create_task(cache.get_or_load(key, find_slowly)) for _ in range(500)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [find.code] * 499
    assert find.calls == 1


async def test_who_shares_a_question_gets_an_error_of_their_own(key: str) -> None:
    """With its cause; raising it leaves no trace in another's."""

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


async def test_a_process_forgets_within_a_second(key: str) -> None:
    """What another process changed shows after a second at most."""
    time = 100.0
    cache = MemoryLookupCache(now=lambda: time)
    await cache.get_or_load(key, CountingLookup(new_code()))
    time += 0.95
    assert await cache.get_or_load(key, CountingLookup(None)) is None


async def test_processes_share_what_is_in_redis(server: RedisClient, key: str) -> None:
    """One process finds what another stored, and not what another cleared."""
    one, two, code = RedisLookupCache(server), RedisLookupCache(server), new_code()
    await one.get_or_load(key, CountingLookup(code))
    await wait_until_cached(two, key, code)
    await one.invalidate(key)
    assert await two.get_or_load(key, CountingLookup(None)) is None


@pytest.mark.parametrize("lifetime", [5, 3600])
async def test_nothing_outlives_the_code_or_half_a_minute(
    server: RedisClient, key: str, lifetime: int
) -> None:
    """An entry ends with its code, and before a clear that was lost could matter."""
    cache, code = RedisLookupCache(server), new_code(seconds=lifetime)
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    assert 0 < await server.client.pttl(entry_key(key)) <= min(lifetime, 25) * 1000


async def test_an_entry_says_itself_when_it_ends(server: RedisClient, key: str) -> None:
    """Not even a Redis that forgot to expire an entry makes it live longer."""
    time = datetime.now(UTC).timestamp()
    cache, code = RedisLookupCache(server, now=lambda: time), new_code()
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    await server.client.persist(entry_key(key))
    time += 25
    assert await cache.get_or_load(key, CountingLookup(None)) is None


@pytest.mark.parametrize("garbage", [b"", b"x", b"\xff\x00", b"\x92\xc0\xc0", "list"])
async def test_garbage_is_nothing(server: RedisClient, key: str, garbage: bytes | str) -> None:
    """What cannot be read counts as unknown."""
    cache, code = RedisLookupCache(server), new_code()
    if isinstance(garbage, str):
        await server.client.rpush(entry_key(key), garbage)
    else:
        await server.client.set(entry_key(key), garbage)
    assert await cache.get_or_load(key, CountingLookup(code)) == code
    assert server.is_available


async def test_redis_never_sees_an_address(server: RedisClient, key: str) -> None:
    """Neither a key nor a value shows whose code it is."""
    cache, code = RedisLookupCache(server), new_code()
    await cache.get_or_load(key, CountingLookup(code))
    await wait_until_cached(cache, key, code)
    local_part = key.partition("@")[0].encode()
    assert local_part not in entry_key(key)
    assert local_part not in (await server.client.get(entry_key(key)) or b"")
    for name in await server.client.keys("*"):
        assert local_part not in name


async def test_an_entry_that_ended_soon_leaves_the_mark(server: RedisClient, key: str) -> None:
    """A find from before a change is not remembered, though what came after has ended already."""
    old, new, on_its_way, go_on = new_code(), new_code(), asyncio.Event(), asyncio.Event()

    async def find_slowly() -> Code | None:
        on_its_way.set()
        await go_on.wait()
        return old

    late, changing, reading = (RedisLookupCache(server) for _ in range(3))
    slow = asyncio.create_task(late.get_or_load(key, find_slowly))
    await on_its_way.wait()
    await changing.invalidate(key)
    await reading.get_or_load(key, CountingLookup(None))
    await wait_until_cached(reading, key, None)
    await server.client.delete(entry_key(key))  # as it ends by itself
    go_on.set()
    assert await slow == old
    assert await reading.get_or_load(key, CountingLookup(new)) == new
    await wait_until_cached(reading, key, new)


async def test_a_clear_that_redis_refuses_is_made_good(server: RedisClient, key: str) -> None:
    """The process does not read that key for a minute, after which nothing old is left to read."""
    time = datetime.now(UTC).timestamp()
    cache, old, new = RedisLookupCache(server, now=lambda: time), new_code(), new_code()
    await cache.get_or_load(key, CountingLookup(old))
    await wait_until_cached(cache, key, old)
    await server.client.config_set("maxmemory", 1)
    try:
        assert not await cache.invalidate(key)
    finally:
        await server.client.config_set("maxmemory", 0)
    assert await cache.get_or_load(key, CountingLookup(new)) == new
    time += 61
    assert await cache.get_or_load(key, CountingLookup(new)) == new
    await wait_until_cached(cache, key, new)


class UnreachableRedis(RedisClient):
    """A server that answers nobody, and is asked again when the test wants it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.repeats: list[Callable[[], Awaitable[None]]] = []

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:  # noqa: ARG002
        raise RedisUnavailable

    def add_recovery_hook(self, hook: Callable[[], Awaitable[None]]) -> None:
        self.repeats.append(hook)


async def test_what_is_cleared_during_the_repeats_is_repeated(
    server: RedisClient, redis_url: str
) -> None:
    """Nobody is told from Redis again before that."""
    addresses = [f"{uuid4().hex}@example.com" for _ in range(2_000)]
    for address in addresses:
        await server.client.set(entry_key(address), b"old", ex=60)
    silent = UnreachableRedis(redis_url)
    cache = RedisLookupCache(silent)
    for address in addresses[:-1]:
        assert not await cache.invalidate(address)
    (repeat,) = silent.repeats
    repeating = asyncio.ensure_future(repeat())
    await asyncio.sleep(0)
    assert not await cache.invalidate(addresses[-1])
    await repeating
    assert await server.client.exists(*map(entry_key, addresses)) == 0
    await silent.close()


async def test_in_a_long_outage_only_the_last_minute_is_repeated(
    server: RedisClient, redis_url: str
) -> None:
    """What was to be cleared before has ended by itself."""
    time = 0.0
    silent = UnreachableRedis(redis_url)
    cache = RedisLookupCache(silent, now=lambda: time)
    addresses = [f"{uuid4().hex}@example.com" for _ in range(100)]
    for address in addresses:
        await server.client.set(entry_key(address), b"old", ex=60)
        time += 1
        assert not await cache.invalidate(address)
    await silent.repeats[0]()
    assert await server.client.exists(*map(entry_key, addresses)) == 40
    await silent.close()
