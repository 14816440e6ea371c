"""The lookup cache in the memory of each process, in front of Redis or instead of it."""

import asyncio
import time
from asyncio import Task
from collections.abc import Awaitable, Callable, Iterator

from referral.adapters.batching import copy_exception
from referral.adapters.observability.samples import Sample
from referral.core.entities.codes import Code
from referral.core.ports.caching import LookupCache

MEMORY_TTL_SECONDS = 0.9
"""Invalidation does not reach other processes, which may return a deleted code for one second."""

MAX_MEMORY_ENTRIES = 5_000


class MemoryLookupCache:
    """A cache that evicts its oldest entries; concurrent misses of one key share one load.

    `invalidate` invalidates the next cache first, and then drops the loads in progress here, whose
    results may be older than the change.
    """

    def __init__(
        self, next_cache: LookupCache | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """A miss asks `next_cache`, or the database without one; `now` returns seconds."""
        self._next_cache = next_cache
        self._now = now
        self._entries: dict[str, tuple[float, Code | None]] = {}
        self._loads: dict[str, Task[Code | None]] = {}
        self._hits = self._misses = 0

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        """Return the entry; after a miss, start a load or join the one in progress."""
        entry = self._entries.get(email_key)
        if entry is not None and entry[0] > self._now():
            self._hits += 1
            return entry[1]
        self._misses += 1
        task = self._loads.get(email_key)
        if task is None:
            task = asyncio.create_task(self._load(email_key, load))
            task.add_done_callback(_retrieve_exception)
            self._loads[email_key] = task
        # Other requests await the task too: the cancellation of this one must not cancel it.
        try:
            return await asyncio.shield(task)
        except Exception as error:  # noqa: BLE001 - other requests raise the same exception
            raise copy_exception(error) from error.__cause__

    def find_cached(self, email_key: str) -> Code | None:
        """Return the entry's code without a load."""
        expires_at, code = self._entries.get(email_key, (0.0, None))
        if expires_at <= self._now():
            return None
        self._hits += 1
        return code

    def samples(self) -> Iterator[Sample]:
        """Return the numbers of hits and misses."""
        yield Sample("referral_cache_lookups", ("process", "hit"), self._hits)
        yield Sample("referral_cache_lookups", ("process", "miss"), self._misses)

    async def invalidate(self, email_key: str) -> bool:
        """Invalidate the next cache, then this one."""
        try:
            return self._next_cache is None or await self._next_cache.invalidate(email_key)
        finally:
            self._loads.pop(email_key, None)
            self._entries.pop(email_key, None)

    async def _load(
        self, email_key: str, find: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        expires_at, task = self._now() + MEMORY_TTL_SECONDS, asyncio.current_task()
        try:
            code = await (
                self._next_cache.get_or_load(email_key, find) if self._next_cache else find()
            )
            if self._loads.get(email_key) is task:
                self._store(email_key, expires_at, code)
            return code
        finally:
            if self._loads.get(email_key) is task:
                del self._loads[email_key]

    def _store(self, email_key: str, expires_at: float, code: Code | None) -> None:
        self._entries.pop(email_key, None)
        while self._entries and len(self._entries) >= MAX_MEMORY_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[email_key] = (expires_at, code)


def _retrieve_exception(task: Task[Code | None]) -> None:
    """Retrieve the exception, since asyncio logs exceptions that nobody retrieves."""
    if not task.cancelled():
        task.exception()
