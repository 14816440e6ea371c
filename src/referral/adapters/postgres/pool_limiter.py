"""A limit of the callers of a connection pool; a waiting caller fails only if the queue stalls."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from referral.adapters.observability.samples import Sample
from referral.core.errors import Unavailable

POOL_STALL_SECONDS = 1.0
"""Time without a served caller after which the waiting callers get an error."""


class PoolLimiter:
    """Grants a number of permits, and queues further callers.

    The timeout of a pool cannot tell a short burst from a hung database. Here callers wait as long
    as others are served. If none is served for `stall_timeout` seconds, all callers that have
    waited so long get `Unavailable`.
    """

    def __init__(self, size: int, stall_timeout: float) -> None:
        """Take the number of permits, and the stall timeout in seconds."""
        self.size = size
        self.waiting = 0
        self._available = size
        self._semaphore = asyncio.Semaphore(size)
        self._stall_timeout = stall_timeout
        self._last_progress = 0.0

    @property
    def in_use(self) -> int:
        """The number of permits in use."""
        return self.size - self._available

    def samples(self, pool: str) -> Iterator[Sample]:
        """Yield the metrics, with the name of the pool as their label."""
        yield Sample("referral_pool_size", (pool,), self.size)
        yield Sample("referral_pool_in_use", (pool,), self.in_use)
        yield Sample("referral_pool_waiting", (pool,), self.waiting)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a permit for the block; raises `Unavailable` if the queue stalls."""
        await self._acquire()
        self._available -= 1
        try:
            yield
        except Unavailable:
            raise  # a failed call does not count as progress
        except BaseException:
            self._last_progress = _now()
            raise
        else:
            self._last_progress = _now()
        finally:
            self._available += 1
            self._semaphore.release()

    async def _acquire(self) -> None:
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return
        started, acquiring = _now(), asyncio.ensure_future(self._semaphore.acquire())
        self.waiting += 1
        try:
            while not (await asyncio.wait({acquiring}, timeout=self._stall_timeout))[0]:
                self._check_stalled(started)
        except BaseException:
            # Leave the queue, or return a permit that was granted at the same moment.
            if not acquiring.cancel() and not acquiring.cancelled():
                self._semaphore.release()
            raise
        finally:
            self.waiting -= 1

    def _check_stalled(self, started: float) -> None:
        if _now() - max(self._last_progress, started) >= self._stall_timeout:
            raise Unavailable


def _now() -> float:
    return asyncio.get_running_loop().time()
