"""Lookup cache and rate limiter."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup, RateLimitResult


class LookupCache(Protocol):
    """A cache of codes by canonical e-mail. It never raises: when it fails, it acts as empty."""

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """Return the cached code, or load and cache it; None is cached as well.

        A value that was loaded before an `invalidate` is not cached after it.
        """
        ...

    def find_cached(self, email_key: str) -> Code | None:
        """Return the code cached in this process, without I/O."""
        ...

    async def invalidate(self, email_key: str) -> bool:
        """Delete an entry; return False if other processes may keep theirs until it expires."""
        ...


class RateLimiter(Protocol):
    """Rate limits. It never raises: when it fails, it counts less accurately."""

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        """Count one request of `key` against the group's limit; None if the group has no limit."""
        ...
