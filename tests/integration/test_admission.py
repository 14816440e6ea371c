"""The queue for connections: patient with a burst, quick to give up on a standstill."""

import asyncio
from contextlib import suppress

import pytest

from referral.adapters.postgres.admission import Admission
from referral.core.errors import Unavailable


async def hold(admission: Admission, until: asyncio.Event) -> None:
    """Take a place and keep it."""
    async with admission.place():
        await until.wait()


async def test_a_standstill_is_given_up() -> None:
    """Whoever waits behind one that never ends is told so, and leaves no trace in the queue."""
    admission, end = Admission(1, patience=0.05), asyncio.Event()
    holder = asyncio.create_task(hold(admission, end))
    await asyncio.wait({holder}, timeout=0)
    with pytest.raises(Unavailable):
        async with admission.place():
            pytest.fail("there is one place, and it is taken")
    end.set()
    await holder
    async with admission.place():
        pass


async def test_a_queue_that_moves_is_waited_for() -> None:
    """The last of a burst waits far longer than a standstill may last."""
    admission, began = Admission(1, patience=0.1), asyncio.get_running_loop().time()

    async def work() -> None:
        async with admission.place():
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.02)

    await asyncio.gather(*(work() for _ in range(20)))
    assert asyncio.get_running_loop().time() - began > 0.3


async def test_whoever_is_cancelled_in_the_queue_takes_no_place() -> None:
    """After a wave of cancelled requests every place is free."""
    admission, end = Admission(2, patience=5), asyncio.Event()
    holders = [asyncio.create_task(hold(admission, end)) for _ in range(2)]
    await asyncio.wait(holders, timeout=0)
    waiting = [asyncio.create_task(hold(admission, end)) for _ in range(50)]
    await asyncio.wait(waiting, timeout=0)
    for task in waiting:
        task.cancel()
    end.set()
    await asyncio.gather(*holders, *waiting, return_exceptions=True)
    async with admission.place(), admission.place():
        pass
