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

    def __init__(self, places: int, patience: float) -> None:
        """Take how many may be inside, and how long the queue may stand still."""
        self.size = places
        self.waiting = 0
        self._free = places
        self._places = asyncio.Semaphore(places)
        self._patience = patience
        self._served = 0.0

    @property
    def in_use(self) -> int:
        """How many are inside."""
        return self.size - self._free

    def measures(self, pool: str) -> Iterator[Sample]:
        """Tell of it under the name of its pool."""
        yield Sample("referral_pool_size", (pool,), self.size)
        yield Sample("referral_pool_in_use", (pool,), self.in_use)
        yield Sample("referral_pool_waiting", (pool,), self.waiting)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the block, or raise `Unavailable`."""
        await self._enter()
        self._free -= 1
        try:
            yield
        except Unavailable:
            raise  # whoever got nothing done has not moved the queue
        except BaseException:
            self._served = _now()
            raise
        else:
            self._served = _now()
        finally:
            self._free += 1
            self._places.release()

    async def _enter(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        began, entering = _now(), asyncio.ensure_future(self._places.acquire())
        self.waiting += 1
        try:
            while not (await asyncio.wait({entering}, timeout=self._patience))[0]:
                self._check(began)
        except BaseException:
            # Give up the place in the queue, or the one that was got in the same moment.
            if not entering.cancel() and not entering.cancelled():
                self._places.release()
            raise
        finally:
            self.waiting -= 1

    def _check(self, began: float) -> None:
        if _now() - max(self._served, began) >= self._patience:
            raise Unavailable


def _now() -> float:
    return asyncio.get_running_loop().time()
