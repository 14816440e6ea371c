"""The pool of the driver's connections, which the read model and mail reservations share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asyncpg import ReadOnlySQLTransactionError

from referral.adapters.postgres.pool import DRIVER_POOL_SIZE, DriverPool
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.core.entities.mail import MailReservationRequest
from referral.core.errors import Unavailable
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW
from tests.support.fakes.security import FakeFingerprinter
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")

PoolUse = Callable[[DriverPool], Coroutine[Any, Any, None]]


class FakeConnection:
    """A connection that awaits `respond` before it responds."""

    def __init__(self, respond: Callable[[], Awaitable[None]]) -> None:
        self._respond = respond
        self.terminated = False

    async def fetch(self, *_: object) -> list[Any]:
        await self._respond()
        return []

    async def fetchrow(self, *_: object) -> None:
        await self._respond()

    def terminate(self) -> None:
        self.terminated = True


class FakePool:
    """A pool of the driver without a limit of its own."""

    def __init__(self, respond: Callable[[], Awaitable[None]]) -> None:
        self._respond = respond
        self.acquired: list[FakeConnection] = []

    @asynccontextmanager
    async def acquire(self, **_: object) -> AsyncIterator[FakeConnection]:
        self.acquired.append(FakeConnection(self._respond))
        yield self.acquired[-1]


async def look_up(pool: DriverPool) -> None:
    """Look a code up."""
    await PostgresReadModel(pool).find_code("ann@example.com", confirmed_only=False)


async def show(pool: DriverPool) -> None:
    """Read an account view."""
    await PostgresReadModel(pool).find_account(ID_GENERATOR.new(), 10, NOW)


async def reserve_mail(pool: DriverPool) -> None:
    """Reserve a slot for a mail."""
    mail_reservations = PostgresMailReservations(pool, FakeFingerprinter())
    await mail_reservations.reserve(
        MailReservationRequest(ID_GENERATOR.new(), ID_GENERATOR.new(), NOW, 3, HOUR)
    )


@pytest.mark.parametrize("use_pool", [look_up, show, reserve_mail])
@pytest.mark.parametrize("error", [TimeoutError, ReadOnlySQLTransactionError])
async def test_connection_is_terminated_after_a_timeout(
    use_pool: PoolUse, error: type[Exception]
) -> None:
    """Otherwise the pool would wait for the server again, or use one that takes no writes."""

    async def fail() -> None:
        raise error

    pool = FakePool(fail)
    with pytest.raises(Unavailable):
        await use_pool(DriverPool(pool))
    assert [connection.terminated for connection in pool.acquired] == [True]


def queue_length(pool: DriverPool) -> float:
    """Return the length of the queue, from the metrics."""
    *_, last = pool.samples()
    assert isinstance(last.value, int)
    return last.value


@pytest.mark.parametrize("use_pool", [look_up, show, reserve_mail])
async def test_all_callers_wait_in_one_queue(use_pool: PoolUse) -> None:
    """With all connections in use, the next caller is counted as waiting, and served later."""
    free = asyncio.Event()

    async def wait() -> None:
        await free.wait()

    pool = FakePool(wait)
    connections = DriverPool(pool)
    busy = [asyncio.create_task(show(connections)) for _ in range(DRIVER_POOL_SIZE)]
    queued = asyncio.create_task(use_pool(connections))
    await wait_until(lambda: len(pool.acquired) + queue_length(connections) == DRIVER_POOL_SIZE + 1)
    assert len(pool.acquired) == DRIVER_POOL_SIZE
    assert [measure.value for measure in connections.samples()] == [
        DRIVER_POOL_SIZE,
        DRIVER_POOL_SIZE,
        1,
    ]
    free.set()
    await asyncio.gather(*busy, queued)
    assert [measure.value for measure in connections.samples()] == [DRIVER_POOL_SIZE, 0, 0]
