"""Fakes of the lookup cache and the rate limiter."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup, RateLimitResult


class FakeLookupCache:
    """Entries without an expiry; `invalidated` records the invalidated keys."""

    def __init__(self) -> None:
        self.invalidated: list[str] = []
        self.available = True
        self._entries: dict[str, Code | None] = {}

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        if email_key not in self._entries:
            self._entries[email_key] = await load()
        return self._entries[email_key]

    def find_cached(self, email_key: str) -> Code | None:
        return self._entries.get(email_key)

    async def invalidate(self, email_key: str) -> bool:
        if self.available:
            self.invalidated.append(email_key)
            self._entries.pop(email_key, None)
        return self.available


class FakeRateLimiter:
    """Counts per group and key; a group without an entry in `limits` is unlimited."""

    def __init__(self, limits: Mapping[RateLimitGroup, int] | None = None) -> None:
        self.limits = dict(limits or {})
        self._counts = Counter[tuple[str, str]]()

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        limit = self.limits.get(group)
        if limit is None:
            return None
        self._counts[group, key] += 1
        remaining = limit - self._counts[group, key]
        return RateLimitResult(remaining >= 0, limit, 60, max(0, remaining), 60)
