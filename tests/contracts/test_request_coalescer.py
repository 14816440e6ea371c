"""Coalescing of concurrent requests into batches."""

import asyncio

import pytest
from structlog.testing import capture_logs

from referral.adapters.batching import BatchQueue, RequestCoalescer
from referral.core.errors import Unavailable
from tests.support.waiting import wait_until


async def test_concurrent_requests_share_batches() -> None:
    """The first request is sent at once, and those that arrive meanwhile share the next batch."""
    batches_sent: list[list[int]] = []
    gate = asyncio.Event()

    async def double(numbers: list[int]) -> list[int]:
        batches_sent.append(numbers)
        await gate.wait()
        return [2 * number for number in numbers]

    coalescer = RequestCoalescer(double, max_size=3)
    tasks = [asyncio.create_task(coalescer.submit(1))]
    await wait_until(lambda: batches_sent == [[1]])
    tasks += [asyncio.create_task(coalescer.submit(number)) for number in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert batches_sent == [[1], [2, 3, 4], [5]]


async def test_failed_batch_fails_its_own_requests_only() -> None:
    """The next batch is sent as usual."""
    failures = [OSError(), None]

    async def fail_once(numbers: list[int]) -> list[int]:
        failure = failures.pop(0)
        if failure is not None:
            raise failure
        return numbers

    coalescer = RequestCoalescer(fail_once)
    for result in await asyncio.gather(
        coalescer.submit(1), coalescer.submit(2), return_exceptions=True
    ):
        assert isinstance(result, OSError)
    assert await coalescer.submit(3) == 3


class InvalidItem(ValueError):
    """An error about one item, with a constructor of its own."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"{number} is {reason}")
        self.number = number


async def test_invalid_item_fails_alone() -> None:
    """The other items of its batch succeed, after a few more batches."""
    batches_sent = 0

    async def respond(numbers: list[int]) -> list[int]:
        nonlocal batches_sent
        batches_sent += 1
        for number in numbers:
            if number in {3, 70}:
                raise InvalidItem(number, reason="bad")
        return numbers

    coalescer = RequestCoalescer(respond)
    requests = [coalescer.submit(number) for number in range(100)]
    async with asyncio.timeout(5):
        results = await asyncio.gather(*requests, return_exceptions=True)
    failed = {number: one for number, one in enumerate(results) if one != number}
    assert failed.keys() == {3, 70}
    assert all(isinstance(one, InvalidItem) and one.number == at for at, one in failed.items())
    assert batches_sent < 30


async def test_divided_batch_stops_at_a_timeout() -> None:
    """The rest of the batch and the queued requests fail at once."""
    batches_sent = 0

    async def respond(_: list[int]) -> list[int]:
        nonlocal batches_sent
        batches_sent += 1
        raise ValueError if batches_sent == 1 else TimeoutError

    coalescer = RequestCoalescer(respond)
    requests = [coalescer.submit(number) for number in range(50)]
    async with asyncio.timeout(5):
        results = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(one) for one in results] == [TimeoutError] * 50
    assert batches_sent == 2


async def test_requests_of_a_failed_batch_get_separate_errors() -> None:
    """With its fields and its cause; raising one error leaves no traceback in another."""

    async def fail(_: list[int]) -> list[int]:
        raise Unavailable("away", field="here") from ConnectionError()

    coalescer = RequestCoalescer(fail)
    requests = [coalescer.submit(number) for number in range(3)]
    errors = await asyncio.gather(*requests, return_exceptions=True)
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

    async def respond(numbers: list[int]) -> list[int]:
        return numbers[:number] + numbers * (number > 0) if wrong else numbers

    coalescer = RequestCoalescer(respond)
    async with asyncio.timeout(5):
        results = await asyncio.gather(
            *(coalescer.submit(1) for _ in range(3)), return_exceptions=True
        )
    assert [type(one) for one in results] == [RuntimeError] * 3
    wrong = False
    assert await coalescer.submit(4) == 4


async def test_cancelled_batch_cancels_its_requests() -> None:
    """As well as the queued ones, as at shutdown."""
    started: asyncio.Future[asyncio.Task[None] | None] = asyncio.get_running_loop().create_future()

    async def hang(_: list[int]) -> list[int]:
        started.set_result(asyncio.current_task())
        await asyncio.Event().wait()
        return []

    coalescer = RequestCoalescer(hang, max_size=1)
    requests = [asyncio.create_task(coalescer.submit(number)) for number in range(3)]
    batch_task = await started
    assert batch_task is not None
    batch_task.cancel()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(one) for one in results] == [asyncio.CancelledError] * 3


async def test_failed_batch_is_logged_and_the_next_runs() -> None:
    """Queued items are not lost."""
    processed: list[int] = []

    async def work(numbers: list[int]) -> None:
        if 1 in numbers:
            raise LookupError
        processed.extend(numbers)

    batches = BatchQueue(work, max_size=1)
    with capture_logs() as logs:
        for number in range(4):
            batches.add(number)
        await wait_until(lambda: len(processed) == 3)
    assert processed == [0, 2, 3]
    assert [(line["event"], line["log_level"]) for line in logs] == [("batch failed", "error")]


async def test_timeout_fails_the_queued_requests() -> None:
    """A hanging server would make each batch wait as long again."""
    started, gate, batches_sent = asyncio.Event(), asyncio.Event(), 0

    async def hang(_: list[int]) -> list[int]:
        nonlocal batches_sent
        batches_sent += 1
        started.set()
        await gate.wait()
        raise TimeoutError

    coalescer = RequestCoalescer(hang, max_size=2)
    tasks = [asyncio.create_task(coalescer.submit(0))]
    await started.wait()
    tasks += [asyncio.create_task(coalescer.submit(number)) for number in range(1, 9)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [TimeoutError] * 9
    assert batches_sent == 1


async def test_cancelled_request_does_not_affect_others() -> None:
    """Cancelled before its batch or during it."""
    gate = asyncio.Event()

    async def slowly(numbers: list[int]) -> list[int]:
        await gate.wait()
        return numbers

    coalescer = RequestCoalescer(slowly, max_size=2)
    tasks = [asyncio.create_task(coalescer.submit(number)) for number in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [1, 3, 5]
    assert all(isinstance(one, asyncio.CancelledError) for one in results[::2])
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
