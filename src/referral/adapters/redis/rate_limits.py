"""How much anyone may ask for: counted in Redis for all processes, or in each for itself.

A process counts ahead: of a limit of ten thousand it takes ten at a time and hands them out without
asking again, so that a high limit costs no round trip a request. The sum never exceeds the limit;
below a thousand it is exact. Without Redis a process hands out its share of the limit, once a
window.
"""

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import NamedTuple

from limits.aio.storage import RedisStorage
from redis.asyncio import Redis

from referral.adapters.observability.samples import Sample
from referral.adapters.redis.client import RedisClient, RedisUnavailable
from referral.core.entities.rate_limits import Rate, RateLimitGroup, RateLimitResult

PREFETCH_DIVISOR = 1000
"""A process takes this part of a limit at a time."""

MAX_WINDOWS_PER_LIMIT = 50_000
"""Of how many callers a process knows its windows, for each limit."""

PROCESS_COUNT_SECONDS = 10
PROCESS_TTL_SECONDS = 300
"""How long a process that counts nothing is still taken for one that shares the limits."""

MAX_CALLER_CHARACTERS = 64
"""Longer names of callers are remembered by their digest: a user name may have 64 KiB."""

PROCESSES_KEY = "referral:processes"


class Window:
    """What one caller may still do until the window ends."""

    __slots__ = ("ends_at", "is_exhausted", "is_local", "local_remaining", "shared_remaining")

    def __init__(self, ends_at: float) -> None:
        """Begin with nothing; `left` is what this process may hand out by itself."""
        self.ends_at = ends_at
        self.local_remaining = 0
        self.shared_remaining = 0
        self.is_exhausted = False
        self.is_local = False


class RateLimit:
    """A limit, and the windows of its callers, the oldest first."""

    def __init__(self, limit: int, seconds: int) -> None:
        """Take what may be done in how long."""
        self.limit = limit
        self.seconds = seconds
        self.prefetch = max(1, limit // PREFETCH_DIVISOR)
        self.windows: OrderedDict[str, Window] = OrderedDict()

    def window(self, caller: str, now: float) -> Window:
        """Return the caller's window, a new one if the last is over."""
        window = self.windows.get(caller)
        if window is None or window.ends_at <= now:
            self.windows.pop(caller, None)
            self._evict_oldest(now)
            window = self.windows[caller] = Window(now + self.seconds)
        return window

    def _evict_oldest(self, now: float) -> None:
        """Forget two windows that are over for each that begins, so that none stay for good."""
        for _ in range(2):
            oldest = next(iter(self.windows.values()), None)
            if oldest is None or (
                oldest.ends_at > now and len(self.windows) < MAX_WINDOWS_PER_LIMIT
            ):
                break
            self.windows.popitem(last=False)


class CounterReading(NamedTuple):
    """What Redis counted, and when its window ends."""

    total: int
    ends_at: float


class FixedWindowRateLimiter:
    """See the port `Limits`."""

    def __init__(
        self,
        rates: Mapping[RateLimitGroup, Rate],
        client: RedisClient | None,
        processes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take a rate for every group, and how many processes share them; raises `ValueError`
        when a group has no rate.
        """
        if missing := set(RateLimitGroup) - rates.keys():
            problem = f"no rate for {', '.join(sorted(missing))}"
            raise ValueError(problem)
        self._limits = {group: _rate_limit(rate) for group, rate in rates.items()}
        self._client = client
        self._storage = _storage(client) if client else None
        self._configured_processes = self._processes = processes
        self._now = now
        self._process_id = uuid.uuid4().hex
        self._processes_counted_at = 0.0
        self._refused = {group: 0 for group, rule in self._limits.items() if rule is not None}

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        """See the port."""
        limit = self._limits[group]
        if limit is None:
            return None
        now, key = self._now(), key if len(key) <= MAX_CALLER_CHARACTERS else _digest(key)
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
        """See `Measured`."""
        for group, refused in self._refused.items():
            if group is RateLimitGroup.LOGIN_CLIENT_IP:
                continue  # refuses nothing by itself
            yield Sample("referral_limited", (group,), refused)

    async def _prefetch(self, limit: RateLimit, window: Window, group: str, caller: str) -> None:
        reading = (
            None if window.is_local else await self._count_in_redis(limit, window, group, caller)
        )
        if reading is None:
            self._use_local_share(limit, window)
            return
        window.ends_at = reading.ends_at
        granted = limit.prefetch - max(0, reading.total - limit.limit)
        window.local_remaining += max(0, granted)
        window.shared_remaining = max(0, limit.limit - reading.total)
        window.is_exhausted = granted <= 0

    def _use_local_share(self, limit: RateLimit, window: Window) -> None:
        """Let this process hand out its share, once a window, whoever else waited for Redis too."""
        if window.is_local:
            window.is_exhausted = not window.local_remaining
            return
        window.local_remaining = max(1, limit.limit // self._processes)
        window.shared_remaining, window.is_local = 0, True

    async def _count_in_redis(
        self, limit: RateLimit, window: Window, group: str, caller: str
    ) -> CounterReading | None:
        if self._client is None or self._storage is None:
            return None
        key, storage = f"{group}:{_digest(caller)}:{limit.limit}/{limit.seconds}", self._storage
        try:
            await self._count_processes(self._client)
            total = await self._client.execute(
                lambda _: storage.incr(key, limit.seconds, limit.prefetch)
            )
            if total == limit.prefetch:
                return CounterReading(total, self._now() + limit.seconds)
            if window.shared_remaining:
                return CounterReading(total, window.ends_at)
            return CounterReading(
                total, await self._client.execute(lambda _: storage.get_expiry(key))
            )
        except RedisUnavailable:
            return None

    async def _count_processes(self, client: RedisClient) -> None:
        """Learn, now and then, how many share the limits, for when Redis cannot be asked."""
        now = self._now()
        if now - self._processes_counted_at < PROCESS_COUNT_SECONDS:
            return
        self._processes_counted_at = now

        async def count(client: Redis) -> list[int]:
            pipe = client.pipeline(transaction=False)
            pipe.zadd(PROCESSES_KEY, {self._process_id: now})
            pipe.zremrangebyscore(PROCESSES_KEY, 0, now - PROCESS_TTL_SECONDS)
            pipe.zcard(PROCESSES_KEY)
            return await pipe.execute()

        # Those that have just started may not have counted anything yet.
        self._processes = max(self._configured_processes, (await client.execute(count))[-1])


def _storage(client: RedisClient) -> RedisStorage:
    pool = client.client.connection_pool
    return RedisStorage("async+redis://", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]


def _rate_limit(rate: Rate) -> RateLimit | None:
    return None if rate.limit is None else RateLimit(rate.limit, round(rate.window.total_seconds()))


def _digest(caller: str) -> str:
    """Name a caller in a way that does not show the address."""
    return hashlib.sha256(caller.encode(errors="surrogatepass")).hexdigest()[:32]
