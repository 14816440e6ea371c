"""The one way to the driver's connections, for reads and for what mails begin with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from referral.adapters.postgres.pool import CONNECTIONS, DriverPool
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.core.entities.mail import MailReservationRequest
from referral.core.errors import Unavailable
from tests.contracts.rows import HOUR, IDS, NOW
from tests.support.fakes import FakeFingerprints
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("time_limits")

Ask = Callable[[DriverPool], Coroutine[Any, Any, None]]


class Connection:
    """A connection that waits for `answer` before it says anything."""

    def __init__(self, answer: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self.terminated = False

    async def fetch(self, *_: object) -> list[Any]:
        await self._answer()
        return []

    async def fetchrow(self, *_: object) -> None:
        await self._answer()

    def terminate(self) -> None:
        self.terminated = True


class Pool:
    """A pool of the driver, which would give out as many connections as are asked for."""

    def __init__(self, answer: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self.given: list[Connection] = []

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[Connection]:
        self.given.append(Connection(self._answer))
        yield self.given[-1]


async def look_up(pool: DriverPool) -> None:
    """Read a code."""
    await PostgresReadModel(pool).code_of("ann@example.com", confirmed_only=False)


async def show(pool: DriverPool) -> None:
    """Read an account."""
    await PostgresReadModel(pool).account(IDS.new(), 10, NOW)


async def begin_mail(pool: DriverPool) -> None:
    """Take a place for a mail."""
    office = PostgresMailReservations(pool, FakeFingerprints())
    await office.take(MailReservationRequest(IDS.new(), IDS.new(), NOW, 3, HOUR))


@pytest.mark.parametrize("ask", [look_up, show, begin_mail])
async def test_a_connection_whose_answer_takes_too_long_is_not_used_again(ask: Ask) -> None:
    """It is cut, since the pool would otherwise wait for the server as long again."""

    async def time_out() -> None:
        raise TimeoutError

    pool = Pool(time_out)
    with pytest.raises(Unavailable):
        await ask(DriverPool(pool))
    assert [connection.terminated for connection in pool.given] == [True]


def waiting(pool: DriverPool) -> float:
    """Return how many wait in the queue, as the metrics tell."""
    *_, last = pool.measures()
    assert isinstance(last.value, int)
    return last.value


@pytest.mark.parametrize("ask", [look_up, show, begin_mail])
async def test_everybody_waits_in_one_queue(ask: Ask) -> None:
    """With all connections in use, the next who asks is counted as waiting, and served after."""
    free = asyncio.Event()

    async def wait() -> None:
        await free.wait()

    pool = Pool(wait)
    connections = DriverPool(pool)
    busy = [asyncio.create_task(show(connections)) for _ in range(CONNECTIONS)]
    late = asyncio.create_task(ask(connections))
    await until(lambda: len(pool.given) + waiting(connections) == CONNECTIONS + 1)
    assert len(pool.given) == CONNECTIONS
    assert [measure.value for measure in connections.measures()] == [CONNECTIONS, CONNECTIONS, 1]
    free.set()
    await asyncio.gather(*busy, late)
    assert [measure.value for measure in connections.measures()] == [CONNECTIONS, 0, 0]
