"""Cached look-ups and rate limits."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup, RateLimitResult


class LookupCache(Protocol):
    """Look-ups by canonical address, remembered for a moment; it never fails, but forgets."""

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """Return what is remembered, or what `find` finds, which is remembered from then on.

        What was found before a `clear` is not remembered after it.
        """
        ...

    def find_cached(self, email_key: str) -> Code | None:
        """Return the code that this process remembers, without asking anybody."""
        ...

    async def invalidate(self, email_key: str) -> bool:
        """Forget an address; False where others may remember it for some seconds."""
        ...


class RateLimiter(Protocol):
    """How often anyone may do something; it never fails, but counts less well."""

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        """Count once more against the limit of the group; None where it has none."""
        ...
