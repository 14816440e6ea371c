"""The queue for connections: patient with a burst, quick to give up on a standstill."""

import asyncio

import pytest

from referral.adapters.postgres.admission import PoolLimiter
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")

STALL_SECONDS = 0.01


async def hold_slot(limiter: PoolLimiter, released: asyncio.Event) -> None:
    """Take a place and keep it."""
    async with limiter.permit():
        await released.wait()


class FakeMonotonicClock:
    """A clock that the test moves, and that counts how often somebody looked at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeMonotonicClock:
    """What those in the queue take for the time."""
    time = FakeMonotonicClock()
    monkeypatch.setattr("referral.adapters.postgres.admission._now", time)
    return time


async def test_a_standstill_is_given_up(time: FakeMonotonicClock) -> None:
    """Whoever waits behind one that never ends is told so, and leaves no trace in the queue."""
    admission, end = PoolLimiter(1, STALL_SECONDS), asyncio.Event()
    holder = asyncio.create_task(hold_slot(admission, end))
    await wait_until(lambda: admission.in_use)
    waiting = asyncio.create_task(hold_slot(admission, end))
    looks = time.reads
    await wait_until(lambda: time.reads > looks + 2)
    assert not waiting.done()
    time.now += STALL_SECONDS
    with pytest.raises(Unavailable):
        await waiting
    end.set()
    await holder
    async with admission.permit():
        pass


async def test_a_queue_that_moves_is_waited_for(time: FakeMonotonicClock) -> None:
    """The last of a burst waits far longer than a standstill may last."""
    admission, left = PoolLimiter(1, STALL_SECONDS), 20

    async def work() -> None:
        nonlocal left
        async with admission.permit():
            left -= 1
            await wait_until(lambda: admission.waiting == left)
            time.now += 0.9 * STALL_SECONDS
            looks = time.reads
            await wait_until(lambda: not left or time.reads > looks + 20)

    await asyncio.gather(*(work() for _ in range(left)))
    assert time.now > 10 * STALL_SECONDS


async def test_whoever_is_cancelled_in_the_queue_takes_no_place() -> None:
    """After a wave of cancelled requests every place is free."""
    admission, end = PoolLimiter(2, stall_timeout=5), asyncio.Event()
    holders = [asyncio.create_task(hold_slot(admission, end)) for _ in range(2)]
    await asyncio.wait(holders, timeout=0)
    waiting = [asyncio.create_task(hold_slot(admission, end)) for _ in range(50)]
    await asyncio.wait(waiting, timeout=0)
    for task in waiting:
        task.cancel()
    end.set()
    await asyncio.gather(*holders, *waiting, return_exceptions=True)
    async with admission.permit(), admission.permit():
        pass
