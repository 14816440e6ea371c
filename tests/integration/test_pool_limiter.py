"""The queue for pooled connections tolerates a burst and gives up on a stall."""

import asyncio

import pytest

from referral.adapters.postgres.pool_limiter import PoolLimiter
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")

STALL_SECONDS = 0.01


async def hold_slot(limiter: PoolLimiter, released: asyncio.Event) -> None:
    """Hold a slot of the limiter until the event is set."""
    async with limiter.permit():
        await released.wait()


class FakeMonotonicClock:
    """A clock that the test moves; it counts its reads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeMonotonicClock:
    """The clock that waiters in the queue read."""
    clock = FakeMonotonicClock()
    monkeypatch.setattr("referral.adapters.postgres.pool_limiter._now", clock)
    return clock


async def test_stalled_queue_raises_unavailable(clock: FakeMonotonicClock) -> None:
    """A waiter gets Unavailable and leaves the queue when no slot is freed in time."""
    limiter, end = PoolLimiter(1, STALL_SECONDS), asyncio.Event()
    holder = asyncio.create_task(hold_slot(limiter, end))
    await wait_until(lambda: limiter.in_use)
    waiting = asyncio.create_task(hold_slot(limiter, end))
    reads = clock.reads
    await wait_until(lambda: clock.reads > reads + 2)
    assert not waiting.done()
    clock.now += STALL_SECONDS
    with pytest.raises(Unavailable):
        await waiting
    end.set()
    await holder
    async with limiter.permit():
        pass


async def test_moving_queue_has_no_total_timeout(clock: FakeMonotonicClock) -> None:
    """The last waiter of a burst may wait far longer than the stall timeout."""
    limiter, left = PoolLimiter(1, STALL_SECONDS), 20

    async def work() -> None:
        nonlocal left
        async with limiter.permit():
            left -= 1
            await wait_until(lambda: limiter.waiting == left)
            clock.now += 0.9 * STALL_SECONDS
            reads = clock.reads
            await wait_until(lambda: not left or clock.reads > reads + 20)

    await asyncio.gather(*(work() for _ in range(left)))
    assert clock.now > 10 * STALL_SECONDS


async def test_cancelled_waiters_take_no_slot() -> None:
    """After 50 cancelled waiters every slot is free."""
    limiter, end = PoolLimiter(2, stall_timeout=5), asyncio.Event()
    holders = [asyncio.create_task(hold_slot(limiter, end)) for _ in range(2)]
    await asyncio.wait(holders, timeout=0)
    waiting = [asyncio.create_task(hold_slot(limiter, end)) for _ in range(50)]
    await asyncio.wait(waiting, timeout=0)
    for task in waiting:
        task.cancel()
    end.set()
    await asyncio.gather(*holders, *waiting, return_exceptions=True)
    async with limiter.permit(), limiter.permit():
        pass
