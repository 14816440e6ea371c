"""What a process remembers of those whose requests it counts."""

import tracemalloc

import pytest

from referral.adapters.redis.client import RedisGone, RedisServer
from referral.adapters.redis.rate_limits import PROCESSES, CountedLimits
from referral.core.entities.limits import OFF, LimitGroup, Rate


def tokens(rate: str) -> dict[LimitGroup, Rate]:
    """Return the rates of a service that limits one group alone."""
    return dict.fromkeys(LimitGroup, OFF) | {LimitGroup.TOKEN: Rate.read(rate)}


async def test_a_group_without_a_rate_is_an_error_and_not_unlimited() -> None:
    """At the start already, for any group; `off` has to be said."""
    for left_out in LimitGroup:
        rates = {group: OFF for group in LimitGroup if group is not left_out}
        with pytest.raises(ValueError, match=left_out):
            CountedLimits(rates, None, 1)
    assert await CountedLimits(dict.fromkeys(LimitGroup, OFF), None, 1).take(left_out, "") is None


async def test_the_shares_of_processes_that_have_just_started_are_no_more_than_the_limit(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the first of them saw no other in Redis before it was gone."""
    servers = [RedisServer(redis_url) for _ in range(4)]
    await servers[0].client.delete(PROCESSES)
    started = [CountedLimits(tokens("100/minute"), server, 4) for server in servers]
    for limits in started:
        await limits.take(LimitGroup.TOKEN, "the first request of a process")
    monkeypatch.setattr(RedisServer, "ask", _nobody)
    granted = 0
    for limits in started:
        for _ in range(100):
            allowance = await limits.take(LimitGroup.TOKEN, "somebody")
            granted += allowance is not None and allowance.granted
    assert granted == 100
    for server in servers:
        await server.close()


async def test_names_and_ended_windows_are_not_kept() -> None:
    """However long the names are, and however many came in the course of an hour."""
    now = 0.0
    limits = CountedLimits(tokens("30/minute"), None, 1, now=lambda: now)
    tracemalloc.start()
    try:
        for number in range(2_000):
            now += 2
            await limits.take(LimitGroup.TOKEN, f"{number}{'x' * 60_000}")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000


async def test_a_long_name_is_counted_as_one_and_as_itself() -> None:
    """Its last letter tells it from another."""
    limits = CountedLimits(tokens("1/minute"), None, 1)
    granted = [await limits.take(LimitGroup.TOKEN, "x" * 60_000 + last) for last in "aab"]
    assert [allowance and allowance.granted for allowance in granted] == [True, False, True]


async def _nobody(*_: object) -> None:
    raise RedisGone
