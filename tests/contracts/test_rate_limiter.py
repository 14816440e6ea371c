"""The counters of the fixed-window rate limiter."""

import tracemalloc

import pytest

from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.adapters.redis.rate_limits import PROCESSES_KEY, FixedWindowRateLimiter
from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup


def token_rates(rate: str) -> dict[RateLimitGroup, Rate]:
    """Return rates that limit the token group only."""
    return dict.fromkeys(RateLimitGroup, UNLIMITED) | {RateLimitGroup.TOKEN: Rate.parse(rate)}


async def test_group_without_a_rate_is_an_error() -> None:
    """At construction, for any group; only `off` means unlimited."""
    for missing_group in RateLimitGroup:
        rates = {group: UNLIMITED for group in RateLimitGroup if group is not missing_group}
        with pytest.raises(ValueError, match=missing_group):
            FixedWindowRateLimiter(rates, None, 1)
    assert (
        await FixedWindowRateLimiter(dict.fromkeys(RateLimitGroup, UNLIMITED), None, 1).hit(
            missing_group, ""
        )
        is None
    )


async def test_shares_of_new_processes_do_not_exceed_the_limit(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if Redis is lost before the first process has seen the others."""
    servers = [RedisClient(redis_url) for _ in range(4)]
    await servers[0].redis.delete(PROCESSES_KEY)
    started = [FixedWindowRateLimiter(token_rates("100/minute"), server, 4) for server in servers]
    for limits in started:
        await limits.hit(RateLimitGroup.TOKEN, "the first request of a process")
    monkeypatch.setattr(RedisClient, "execute", _raise_redis_gone)
    granted = 0
    for limits in started:
        for _ in range(100):
            result = await limits.hit(RateLimitGroup.TOKEN, "somebody")
            granted += result is not None and result.allowed
    assert granted == 100
    for server in servers:
        await server.close()


async def test_long_keys_and_expired_windows_use_no_memory() -> None:
    """However long the keys are, and however many there are in an hour."""
    now = 0.0
    limits = FixedWindowRateLimiter(token_rates("30/minute"), None, 1, now=lambda: now)
    tracemalloc.start()
    try:
        for number in range(2_000):
            now += 2
            await limits.hit(RateLimitGroup.TOKEN, f"{number}{'x' * 60_000}")
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 200_000


async def test_long_keys_are_counted_separately() -> None:
    """Two keys that differ in the last letter have separate counters."""
    limits = FixedWindowRateLimiter(token_rates("1/minute"), None, 1)
    granted = [await limits.hit(RateLimitGroup.TOKEN, "x" * 60_000 + last) for last in "aab"]
    assert [result and result.allowed for result in granted] == [True, False, True]


async def _raise_redis_gone(*_: object) -> None:
    raise RedisUnavailable
