"""A pool of the driver's own connections, for single statements in autocommit, past SQLAlchemy."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg

from referral.adapters.observability.samples import Sample
from referral.adapters.postgres import pooler
from referral.adapters.postgres.admission import PoolLimiter
from referral.adapters.postgres.database import DATABASE_TIMEOUT_SECONDS, POOL_STALL_SECONDS
from referral.adapters.postgres.outages import errors_as_unavailable

DRIVER_POOL_SIZE = 4
MAX_IDLE_SECONDS = 60.0


class DriverPool:
    """The one way to these connections: whoever asks waits in one queue, in the order of asking."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Take a pool of `CONNECTIONS` connections."""
        self._pool = pool
        self._limiter = PoolLimiter(DRIVER_POOL_SIZE, POOL_STALL_SECONDS)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of a statement, or raise `Unavailable`."""
        async with self._connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
        return rows

    async def fetch_one(self, query: str, *args: object) -> asyncpg.Record | None:
        """Return the first row of a statement, if there is one, or raise `Unavailable`."""
        async with self._connection() as connection:
            return await connection.fetchrow(query, *args)

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._limiter.samples("reads")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._limiter.permit():
            with errors_as_unavailable():
                async with self._pool.acquire(timeout=DATABASE_TIMEOUT_SECONDS) as connection:
                    try:
                        yield connection
                    except TimeoutError:
                        # Otherwise the pool would wait as long again for the server to cancel.
                        connection.terminate()
                        raise


@asynccontextmanager
async def make_driver_pool(
    url: str, connection_class: type[asyncpg.Connection] = asyncpg.Connection
) -> AsyncIterator[DriverPool]:
    """Make a pool for a `postgresql://` URL; it connects when it is first used."""
    async with asyncpg.create_pool(
        pooler.driver_url(url),
        connection_class=connection_class,
        min_size=0,
        max_size=DRIVER_POOL_SIZE,
        max_inactive_connection_lifetime=MAX_IDLE_SECONDS,
        timeout=DATABASE_TIMEOUT_SECONDS,
        command_timeout=DATABASE_TIMEOUT_SECONDS,
        reset=_skip_reset,
        server_settings=pooler.server_settings(url),
        **pooler.driver_options(url),
    ) as pool:
        yield DriverPool(pool)


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Leave a connection as it is when it is given back: single statements do not change it."""
