"""Cached look-ups and rate limits."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from referral.core.entities.codes import Code
from referral.core.entities.limits import LimitGroup, RateLimitResult


class Cache(Protocol):
    """Look-ups by canonical address, remembered for a moment; it never fails, but forgets."""

    async def fetch(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """Return what is remembered, or what `find` finds, which is remembered from then on.

        What was found before a `clear` is not remembered after it.
        """
        ...

    def recall(self, email_key: str) -> Code | None:
        """Return the code that this process remembers, without asking anybody."""
        ...

    async def clear(self, email_key: str) -> bool:
        """Forget an address; False where others may remember it for some seconds."""
        ...


class Limits(Protocol):
    """How often anyone may do something; it never fails, but counts less well."""

    async def take(self, group: LimitGroup, who: str) -> RateLimitResult | None:
        """Count once more against the limit of the group; None where it has none."""
        ...
