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
from referral.adapters.redis.client import RedisGone, RedisServer
from referral.core.entities.limits import LimitGroup, Rate, RateLimitResult

AHEAD = 1000
"""A process takes this part of a limit at a time."""

WINDOWS = 50_000
"""Of how many callers a process knows its windows, for each limit."""

COUNTING_SECONDS = 10
KEPT_SECONDS = 300
"""How long a process that counts nothing is still taken for one that shares the limits."""

MAX_NAME = 64
"""Longer names of callers are remembered by their digest: a user name may have 64 KiB."""

PROCESSES = "referral:processes"


class Window:
    """What one caller may still do until the window ends."""

    __slots__ = ("ends", "left", "on_own", "spent", "stored")

    def __init__(self, ends: float) -> None:
        """Begin with nothing; `left` is what this process may hand out by itself."""
        self.ends = ends
        self.left = 0
        self.stored = 0
        self.spent = False
        self.on_own = False


class Rule:
    """A limit, and the windows of its callers, the oldest first."""

    def __init__(self, amount: int, seconds: int) -> None:
        """Take what may be done in how long."""
        self.amount = amount
        self.seconds = seconds
        self.ahead = max(1, amount // AHEAD)
        self.windows: OrderedDict[str, Window] = OrderedDict()

    def window(self, who: str, now: float) -> Window:
        """Return the caller's window, a new one if the last is over."""
        window = self.windows.get(who)
        if window is None or window.ends <= now:
            self.windows.pop(who, None)
            self._make_room(now)
            window = self.windows[who] = Window(now + self.seconds)
        return window

    def _make_room(self, now: float) -> None:
        """Forget two windows that are over for each that begins, so that none stay for good."""
        for _ in range(2):
            oldest = next(iter(self.windows.values()), None)
            if oldest is None or (oldest.ends > now and len(self.windows) < WINDOWS):
                break
            self.windows.popitem(last=False)


class CounterReading(NamedTuple):
    """What Redis counted, and when its window ends."""

    total: int
    ends: float


class CountedLimits:
    """See the port `Limits`."""

    def __init__(
        self,
        rates: Mapping[LimitGroup, Rate],
        server: RedisServer | None,
        processes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take a rate for every group, and how many processes share them; raises `ValueError`
        when a group has no rate.
        """
        if missing := set(LimitGroup) - rates.keys():
            fault = f"no rate for {', '.join(sorted(missing))}"
            raise ValueError(fault)
        self._rules = {group: _rule(rate) for group, rate in rates.items()}
        self._server = server
        self._storage = _storage(server) if server else None
        self._configured = self._processes = processes
        self._now = now
        self._id = uuid.uuid4().hex
        self._counted_at = 0.0
        self._refused = {group: 0 for group, rule in self._rules.items() if rule is not None}

    async def take(self, group: LimitGroup, who: str) -> RateLimitResult | None:
        """See the port."""
        rule = self._rules[group]
        if rule is None:
            return None
        now, who = self._now(), who if len(who) <= MAX_NAME else _digest(who)
        window = rule.window(who, now)
        if not window.left and not window.spent:
            await self._take_ahead(rule, window, group, who)
        granted = window.left > 0
        if granted:
            window.left -= 1
        else:
            self._refused[group] += 1
        return RateLimitResult(
            granted=granted,
            limit=rule.amount,
            seconds=rule.seconds,
            remaining=window.left + window.stored,
            resets_in=max(1, ceil(window.ends - now)),
        )

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        for group, refused in self._refused.items():
            if group is LimitGroup.ATTEMPTS_FIRST:
                continue  # refuses nothing by itself
            yield Sample("referral_limited", (group,), refused)

    async def _take_ahead(self, rule: Rule, window: Window, group: str, who: str) -> None:
        taken = None if window.on_own else await self._count(rule, window, group, who)
        if taken is None:
            self._give_share(rule, window)
            return
        window.ends = taken.ends
        got = rule.ahead - max(0, taken.total - rule.amount)
        window.left += max(0, got)
        window.stored = max(0, rule.amount - taken.total)
        window.spent = got <= 0

    def _give_share(self, rule: Rule, window: Window) -> None:
        """Let this process hand out its share, once a window, whoever else waited for Redis too."""
        if window.on_own:
            window.spent = not window.left
            return
        window.left = max(1, rule.amount // self._processes)
        window.stored, window.on_own = 0, True

    async def _count(
        self, rule: Rule, window: Window, group: str, who: str
    ) -> CounterReading | None:
        if self._server is None or self._storage is None:
            return None
        key, storage = f"{group}:{_digest(who)}:{rule.amount}/{rule.seconds}", self._storage
        try:
            await self._count_processes(self._server)
            count = await self._server.ask(lambda _: storage.incr(key, rule.seconds, rule.ahead))
            if count == rule.ahead:
                return CounterReading(count, self._now() + rule.seconds)
            if window.stored:
                return CounterReading(count, window.ends)
            return CounterReading(count, await self._server.ask(lambda _: storage.get_expiry(key)))
        except RedisGone:
            return None

    async def _count_processes(self, server: RedisServer) -> None:
        """Learn, now and then, how many share the limits, for when Redis cannot be asked."""
        now = self._now()
        if now - self._counted_at < COUNTING_SECONDS:
            return
        self._counted_at = now

        async def count(client: Redis) -> list[int]:
            pipe = client.pipeline(transaction=False)
            pipe.zadd(PROCESSES, {self._id: now})
            pipe.zremrangebyscore(PROCESSES, 0, now - KEPT_SECONDS)
            pipe.zcard(PROCESSES)
            return await pipe.execute()

        # Those that have just started may not have counted anything yet.
        self._processes = max(self._configured, (await server.ask(count))[-1])


def _storage(server: RedisServer) -> RedisStorage:
    pool = server.client.connection_pool
    return RedisStorage("async+redis://", implementation="redispy", connection_pool=pool)  # type: ignore[arg-type]


def _rule(rate: Rate) -> Rule | None:
    return None if rate.number is None else Rule(rate.number, round(rate.within.total_seconds()))


def _digest(who: str) -> str:
    """Name a caller in a way that does not show the address."""
    return hashlib.sha256(who.encode(errors="surrogatepass")).hexdigest()[:32]
