"""Rate limits over fixed windows, counted in Redis for all processes or by each process alone.

Redis counts in blocks of a thousandth of the limit: of a limit of ten thousand, a process reserves
ten requests at once and grants them without another round trip. The processes together never exceed
the limit; limits below two thousand are counted one by one. While Redis does not answer, a process
grants its share of the limit once per window.
"""

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import NamedTuple, cast

from redis.asyncio import Redis

from referral.adapters.observability.samples import Sample
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.core.entities.rate_limits import Rate, RateLimitGroup, RateLimitResult

PREFETCH_DIVISOR = 1000
"""A process reserves this fraction of a limit at a time."""

MAX_WINDOWS_PER_LIMIT = 50_000
"""The number of keys whose windows a process keeps, for each limit."""

PROCESS_COUNT_SECONDS = 10
"""The interval at which a process registers itself and counts the others."""

PROCESS_TTL_SECONDS = 300
"""A process that has not registered for this time is no longer counted."""

MAX_KEY_CHARACTERS = 64
"""Longer keys are kept as digests: a user name may have 64 KiB."""

PROCESSES_KEY = "referral:processes"

COUNT_SCRIPT = """
local total = redis.call('INCRBY', KEYS[1], ARGV[1])
if total == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {total, redis.call('PTTL', KEYS[1])}
"""
"""Counts requests, and returns the total and the rest of the window in milliseconds."""


class Window:
    """The remaining requests of one key: in this process's block, and in Redis beyond it."""

    __slots__ = ("ends_at", "is_exhausted", "is_local", "local_remaining", "shared_remaining")

    def __init__(self, ends_at: float) -> None:
        """`is_local` means that the process grants its share, since Redis does not answer."""
        self.ends_at = ends_at
        self.local_remaining = 0
        self.shared_remaining = 0
        self.is_exhausted = False
        self.is_local = False


class RateLimit:
    """A limit and the windows of its keys, the oldest first."""

    def __init__(self, limit: int, seconds: int) -> None:
        """Allow `limit` requests in each window of `seconds`."""
        self.limit = limit
        self.seconds = seconds
        self.prefetch = max(1, limit // PREFETCH_DIVISOR)
        self.windows: OrderedDict[str, Window] = OrderedDict()

    def window(self, key: str, now: float) -> Window:
        """Return the key's current window, or a new one."""
        window = self.windows.get(key)
        if window is None or window.ends_at <= now:
            self.windows.pop(key, None)
            self._evict_oldest(now)
            window = self.windows[key] = Window(now + self.seconds)
        return window

    def _evict_oldest(self, now: float) -> None:
        """Evict up to two ended windows for each new one, so that their number shrinks again."""
        for _ in range(2):
            oldest = next(iter(self.windows.values()), None)
            if oldest is None:
                return
            if oldest.ends_at > now and len(self.windows) < MAX_WINDOWS_PER_LIMIT:
                return
            self.windows.popitem(last=False)


class CounterReading(NamedTuple):
    """A counter of Redis after an increment, and the end of its window."""

    total: int
    ends_at: float


class FixedWindowRateLimiter:
    """A rate limiter that counts in Redis, or in the process while Redis does not answer."""

    def __init__(
        self,
        rates: Mapping[RateLimitGroup, Rate],
        client: RedisClient | None,
        processes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Every group needs a rate; `processes` is the least number that share the limits."""
        if missing := set(RateLimitGroup) - rates.keys():
            raise ValueError(f"no rate for {', '.join(sorted(missing))}")
        self._limits = {group: _rate_limit(rate) for group, rate in rates.items()}
        self._client = client
        self._configured_processes = self._processes = processes
        self._now = now
        self._process_id = uuid.uuid4().hex
        self._processes_counted_at = 0.0
        self._refused = {group: 0 for group, limit in self._limits.items() if limit is not None}

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        """Grant or refuse a request, from the process's block or from a new one."""
        limit = self._limits[group]
        if limit is None:
            return None
        now = self._now()
        if len(key) > MAX_KEY_CHARACTERS:
            key = _digest(key)
        window = limit.window(key, now)
        if not window.local_remaining and not window.is_exhausted:
            await self._prefetch(limit, window, group, key)
        granted = window.local_remaining > 0
        if granted:
            window.local_remaining -= 1
        else:
            self._refused[group] += 1
        return RateLimitResult(
            allowed=granted,
            limit=limit.limit,
            window_seconds=limit.seconds,
            remaining=window.local_remaining + window.shared_remaining,
            reset_seconds=max(1, ceil(window.ends_at - now)),
        )

    def samples(self) -> Iterator[Sample]:
        """Return the number of refused requests of each group."""
        for group, refused in self._refused.items():
            if group is RateLimitGroup.LOGIN_CLIENT_IP:
                continue  # refuses no request by itself
            yield Sample("referral_limited", (group,), refused)

    async def _prefetch(self, limit: RateLimit, window: Window, group: str, key: str) -> None:
        reading = None
        if not window.is_local:
            reading = await self._count_in_redis(limit, group, key)
        if reading is None:
            self._use_local_share(limit, window)
            return
        window.ends_at = reading.ends_at
        granted = limit.prefetch - max(0, reading.total - limit.limit)
        window.local_remaining += max(0, granted)
        window.shared_remaining = max(0, limit.limit - reading.total)
        window.is_exhausted = granted <= 0

    def _use_local_share(self, limit: RateLimit, window: Window) -> None:
        """Grant the process's share once per window, even if several requests waited for Redis."""
        if window.is_local:
            window.is_exhausted = not window.local_remaining
            return
        window.local_remaining = max(1, limit.limit // self._processes)
        window.shared_remaining, window.is_local = 0, True

    async def _count_in_redis(
        self, limit: RateLimit, group: str, key: str
    ) -> CounterReading | None:
        if self._client is None:
            return None
        client, block = self._client, limit.prefetch
        redis_key = f"referral:limit:{group}:{_digest(key)}:{limit.limit}/{limit.seconds}"
        try:
            await self._count_processes(client)
            arguments = (redis_key, block, limit.seconds * 1000)
            reply = await client.execute(lambda redis: redis.eval(COUNT_SCRIPT, 1, *arguments))
            total, remaining_ms = cast("list[int]", reply)
            return CounterReading(total, self._now() + remaining_ms / 1000)
        except RedisUnavailable:
            return None

    async def _count_processes(self, client: RedisClient) -> None:
        """Update the number of processes, by which the shares are computed."""
        now = self._now()
        if now - self._processes_counted_at < PROCESS_COUNT_SECONDS:
            return
        self._processes_counted_at = now

        async def count(redis: Redis) -> list[int]:
            pipe = redis.pipeline(transaction=False)
            pipe.zadd(PROCESSES_KEY, {self._process_id: now})
            pipe.zremrangebyscore(PROCESSES_KEY, 0, now - PROCESS_TTL_SECONDS)
            pipe.zcard(PROCESSES_KEY)
            return await pipe.execute()

        # Processes that have just started may not have registered yet.
        self._processes = max(self._configured_processes, (await client.execute(count))[-1])


def _rate_limit(rate: Rate) -> RateLimit | None:
    return None if rate.limit is None else RateLimit(rate.limit, round(rate.window.total_seconds()))


def _digest(key: str) -> str:
    """Return a digest that hides the key's e-mail address or client IP."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
