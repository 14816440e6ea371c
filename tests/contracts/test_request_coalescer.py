"""Questions that share a trip."""

import asyncio

import pytest
from structlog.testing import capture_logs

from referral.adapters.batching import BatchQueue, RequestCoalescer
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until


async def test_concurrent_requests_share_batches() -> None:
    """The first request is sent at once, and those that arrive meanwhile share the next batch."""
    trips: list[list[int]] = []
    gate = asyncio.Event()

    async def double(numbers: list[int]) -> list[int]:
        trips.append(numbers)
        await gate.wait()
        return [2 * number for number in numbers]

    asking = RequestCoalescer(double, max_size=3)
    tasks = [asyncio.create_task(asking.submit(1))]
    await wait_until(lambda: trips == [[1]])
    tasks += [asyncio.create_task(asking.submit(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert trips == [[1], [2, 3, 4], [5]]


async def test_failed_batch_fails_its_own_requests_only() -> None:
    """The next batch is sent as usual."""
    failures = [OSError(), None]

    async def try_it(numbers: list[int]) -> list[int]:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return numbers

    asking = RequestCoalescer(try_it)
    for answer in await asyncio.gather(asking.submit(1), asking.submit(2), return_exceptions=True):
        assert isinstance(answer, OSError)
    assert await asking.submit(3) == 3


class InvalidItem(ValueError):
    """An error about one question, made in a way of its own."""

    def __init__(self, number: int, *, about: str) -> None:
        super().__init__(f"{number} is {about}")
        self.number = number


async def test_invalid_item_fails_alone() -> None:
    """The other items of its batch succeed, after a few more batches."""
    trips = 0

    async def answer(numbers: list[int]) -> list[int]:
        nonlocal trips
        trips += 1
        for number in numbers:
            if number in {3, 70}:
                raise InvalidItem(number, about="bad")
        return numbers

    asking = RequestCoalescer(answer)
    asked = [asking.submit(number) for number in range(100)]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    failed = {number: one for number, one in enumerate(answers) if one != number}
    assert failed.keys() == {3, 70}
    assert all(isinstance(one, InvalidItem) and one.number == at for at, one in failed.items())
    assert trips < 30


async def test_divided_batch_stops_at_a_timeout() -> None:
    """The rest of the batch and the queued requests fail at once."""
    trips = 0

    async def answer(_: list[int]) -> list[int]:
        nonlocal trips
        trips += 1
        raise ValueError if trips == 1 else TimeoutError

    asking = RequestCoalescer(answer)
    asked = [asking.submit(number) for number in range(50)]
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in answers] == [TimeoutError] * 50
    assert trips == 2


async def test_requests_of_a_failed_batch_get_separate_errors() -> None:
    """With its fields and its cause; raising one error leaves no traceback in another."""

    async def fail(_: list[int]) -> list[int]:
        raise Unavailable("away", field="here") from ConnectionError()

    asking = RequestCoalescer(fail)
    asked = [asking.submit(number) for number in range(3)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, Unavailable)
        assert (error.detail, error.field, str(error)) == ("away", "here", "away")
        assert isinstance(error.__cause__, ConnectionError)
        assert error.__traceback__ is not None


@pytest.mark.parametrize("number", [-1, 1])
async def test_wrong_number_of_results_fails_the_batch(number: int) -> None:
    """Results cannot be matched to requests then; the next batch is sent as usual."""
    wrong = True

    async def answer(numbers: list[int]) -> list[int]:
        return numbers[:number] + numbers * (number > 0) if wrong else numbers

    asking = RequestCoalescer(answer)
    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *(asking.submit(1) for _ in range(3)), return_exceptions=True
        )
    assert [type(one) for one in answers] == [RuntimeError] * 3
    wrong = False
    assert await asking.submit(4) == 4


async def test_cancelled_batch_cancels_its_requests() -> None:
    """As well as the queued ones, as at shutdown."""
    begun: asyncio.Future[asyncio.Task[None] | None] = asyncio.get_running_loop().create_future()

    async def hang(_: list[int]) -> list[int]:
        begun.set_result(asyncio.current_task())
        await asyncio.Event().wait()
        return []

    asking = RequestCoalescer(hang, max_size=1)
    asked = [asyncio.create_task(asking.submit(number)) for number in range(3)]
    trip = await begun
    assert trip is not None
    trip.cancel()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in answers] == [asyncio.CancelledError] * 3


async def test_failed_batch_is_logged_and_the_next_runs() -> None:
    """Queued items are not lost."""
    done: list[int] = []

    async def work(numbers: list[int]) -> None:
        if 1 in numbers:
            raise LookupError
        done.extend(numbers)

    batches = BatchQueue(work, max_size=1)
    with capture_logs() as logs:
        for number in range(4):
            batches.add(number)
        await wait_until(lambda: len(done) == 3)
    assert done == [0, 2, 3]
    assert [(line["event"], line["log_level"]) for line in logs] == [("batch failed", "error")]


async def test_timeout_fails_the_queued_requests() -> None:
    """A hanging server would make each batch wait as long again."""
    begun, gate, trips = asyncio.Event(), asyncio.Event(), 0

    async def hang(_: list[int]) -> list[int]:
        nonlocal trips
        trips += 1
        begun.set()
        await gate.wait()
        raise TimeoutError

    asking = RequestCoalescer(hang, max_size=2)
    tasks = [asyncio.create_task(asking.submit(0))]
    await begun.wait()
    tasks += [asyncio.create_task(asking.submit(number)) for number in range(1, 9)]
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError] * 9
    assert trips == 1


async def test_cancelled_request_does_not_affect_others() -> None:
    """Cancelled before its batch or during it."""
    gate = asyncio.Event()

    async def slowly(numbers: list[int]) -> list[int]:
        await gate.wait()
        return numbers

    asking = RequestCoalescer(slowly, max_size=2)
    tasks = [asyncio.create_task(asking.submit(number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [1, 3, 5]
    assert all(isinstance(one, asyncio.CancelledError) for one in answers[::2])
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
