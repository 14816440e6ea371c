"""Questions that share a trip."""

import asyncio

import pytest

from referral.adapters.batches import Trips


async def test_questions_at_once_share_trips_and_each_gets_its_answer() -> None:
    """One alone goes off at once, and those that come meanwhile go together."""
    trips: list[list[int]] = []
    gate = asyncio.Event()

    async def double(numbers: list[int]) -> list[int]:
        trips.append(numbers)
        await gate.wait()
        return [2 * number for number in numbers]

    asking = Trips(double, size=3)
    tasks = [asyncio.create_task(asking.ask(1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(asking.ask(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert trips == [[1], [2, 3, 4], [5]]


async def test_a_failed_trip_fails_those_who_were_on_it_and_no_other() -> None:
    """The next goes as ever."""
    failures = [OSError(), None]

    async def try_it(numbers: list[int]) -> list[int]:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return numbers

    asking = Trips(try_it)
    for answer in await asyncio.gather(asking.ask(1), asking.ask(2), return_exceptions=True):
        assert isinstance(answer, OSError)
    assert await asking.ask(3) == 3


async def test_who_queued_behind_a_failed_trip_fails_with_it() -> None:
    """A server that hangs answers nobody, and each trip would wait for it as long again."""
    begun, gate, trips = asyncio.Event(), asyncio.Event(), 0

    async def hang(_: list[int]) -> list[int]:
        nonlocal trips
        trips += 1
        begun.set()
        await gate.wait()
        raise TimeoutError

    asking = Trips(hang, size=2)
    tasks = [asyncio.create_task(asking.ask(0))]
    await begun.wait()
    tasks += [asyncio.create_task(asking.ask(number)) for number in range(1, 9)]
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError] * 9
    assert trips == 1


async def test_who_waits_no_longer_disturbs_nobody() -> None:
    """Cancelled before the trip or on it."""
    gate = asyncio.Event()

    async def slowly(numbers: list[int]) -> list[int]:
        await gate.wait()
        return numbers

    asking = Trips(slowly, size=2)
    tasks = [asyncio.create_task(asking.ask(number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [1, 3, 5]
    assert all(isinstance(one, asyncio.CancelledError) for one in answers[::2])
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
