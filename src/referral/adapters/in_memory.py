"""Look-ups remembered in the process, before Redis or instead of it."""

import asyncio
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Iterator

from referral.adapters.batching import copy_of
from referral.adapters.observability.samples import Sample
from referral.core.entities.codes import Code
from referral.core.ports.caching import Cache

MEMORY_TTL_SECONDS = 0.9
"""Other processes may show a code for one second after it was deleted."""

ENTRIES = 5_000


class MemoryCache:
    """See the port `Cache`. Those who ask for the same address at once share one question.

    Clearing comes after that of the cache behind it, and lets go of the questions under way: what
    they bring may be from before the change.
    """

    def __init__(
        self, behind: Cache | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the cache that is asked next, if any."""
        self._behind = behind
        self._now = now
        self._known: dict[str, tuple[float, Code | None]] = {}
        self._questions: dict[str, Task[Code | None]] = {}
        self._hits = self._misses = 0

    async def fetch(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """See the port."""
        known = self._known.get(email_key)
        if known is not None and known[0] > self._now():
            self._hits += 1
            return known[1]
        self._misses += 1
        question = self._questions.get(email_key)
        if question is None:
            question = asyncio.create_task(self._ask(email_key, find))
            question.add_done_callback(_look_at)
            self._questions[email_key] = question
        # A shield: others wait for it too when this request is cancelled.
        try:
            return await asyncio.shield(question)
        except Exception as error:  # noqa: BLE001 - whatever it was, others raise it too
            raise copy_of(error) from error.__cause__

    def recall(self, email_key: str) -> Code | None:
        """See the port."""
        until, code = self._known.get(email_key, (0.0, None))
        if until <= self._now():
            return None
        self._hits += 1
        return code

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        yield Sample("referral_cache_lookups", ("process", "hit"), self._hits)
        yield Sample("referral_cache_lookups", ("process", "miss"), self._misses)

    async def clear(self, email_key: str) -> bool:
        """See the port."""
        try:
            return self._behind is None or await self._behind.clear(email_key)
        finally:
            self._questions.pop(email_key, None)
            self._known.pop(email_key, None)

    async def _ask(self, email_key: str, find: Callable[[], Awaitable[Code | None]]) -> Code | None:
        until, this = self._now() + MEMORY_TTL_SECONDS, asyncio.current_task()
        try:
            code = await (self._behind.fetch(email_key, find) if self._behind else find())
            if self._questions.get(email_key) is this:
                self._remember(email_key, until, code)
            return code
        finally:
            if self._questions.get(email_key) is this:
                del self._questions[email_key]

    def _remember(self, email_key: str, until: float, code: Code | None) -> None:
        self._known.pop(email_key, None)
        while self._known and len(self._known) >= ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[email_key] = (until, code)


def _look_at(question: Task[Code | None]) -> None:
    """Take note of an error that nobody waited for, so that the loop does not complain of it."""
    if not question.cancelled():
        question.exception()
