"""Who may use a connection next: a queue that is patient while it moves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from referral.adapters.observability.samples import Sample
from referral.core.errors import Unavailable


class PoolLimiter:
    """Places for so many at a time.

    A pool's plain time limit cannot tell a burst, which is over in a moment, from a database that
    hangs. Here a burst waits as long as others are served, and a queue in which nobody was for
    `patience` seconds is given up.
    """

    def __init__(self, size: int, stall_timeout: float) -> None:
        """Take how many may be inside, and how long the queue may stand still."""
        self.size = size
        self.waiting = 0
        self._available = size
        self._semaphore = asyncio.Semaphore(size)
        self._stall_timeout = stall_timeout
        self._last_progress = 0.0

    @property
    def in_use(self) -> int:
        """How many are inside."""
        return self.size - self._available

    def samples(self, pool: str) -> Iterator[Sample]:
        """Tell of it under the name of its pool."""
        yield Sample("referral_pool_size", (pool,), self.size)
        yield Sample("referral_pool_in_use", (pool,), self.in_use)
        yield Sample("referral_pool_waiting", (pool,), self.waiting)

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a place for the block, or raise `Unavailable`."""
        await self._acquire()
        self._available -= 1
        try:
            yield
        except Unavailable:
            raise  # whoever got nothing done has not moved the queue
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
            # Give up the place in the queue, or the one that was got in the same moment.
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
