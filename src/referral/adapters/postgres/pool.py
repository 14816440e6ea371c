"""A pool of asyncpg connections for single statements in autocommit, without SQLAlchemy."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg

from referral.adapters.observability.samples import Sample
from referral.adapters.postgres import pooler
from referral.adapters.postgres.engine import DATABASE_TIMEOUT_SECONDS, QuickClosingConnection
from referral.adapters.postgres.errors import READ_ONLY_ERRORS, errors_as_unavailable
from referral.adapters.postgres.pool_limiter import POOL_STALL_SECONDS, PoolLimiter
from referral.adapters.postgres.primary import PrimaryConnector

DRIVER_POOL_SIZE = 4
MAX_IDLE_SECONDS = 60.0


class DriverPool:
    """Runs statements on the connections of the pool; callers queue in the order of their calls."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Take a pool of `DRIVER_POOL_SIZE` connections."""
        self._pool = pool
        self._limiter = PoolLimiter(DRIVER_POOL_SIZE, POOL_STALL_SECONDS)

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of a statement, or raise `Unavailable`."""
        async with self._connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
        return rows

    async def fetch_one(self, sql: str, *args: object) -> asyncpg.Record | None:
        """Return the first row of a statement, if any, or raise `Unavailable`."""
        async with self._connection() as connection:
            return await connection.fetchrow(sql, *args)

    def samples(self) -> Iterator[Sample]:
        """See `MetricSource`."""
        return self._limiter.samples("statements")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._limiter.permit():
            with errors_as_unavailable():
                async with self._pool.acquire(timeout=DATABASE_TIMEOUT_SECONDS) as connection:
                    try:
                        yield connection
                    except (TimeoutError, *READ_ONLY_ERRORS):
                        # After a timeout the pool would wait again, for the server to cancel the
                        # statement.
                        connection.terminate()
                        raise


@asynccontextmanager
async def make_driver_pool(
    database: PrimaryConnector | str,
    connection_class: type[asyncpg.Connection] = QuickClosingConnection,
) -> AsyncIterator[DriverPool]:
    """Make a pool for a connector or a `postgresql://` URL; it connects at its first use."""
    connector = PrimaryConnector.of(database)
    async with asyncpg.create_pool(
        connect=connector.connect,
        connection_class=connection_class,
        min_size=0,
        max_size=DRIVER_POOL_SIZE,
        max_inactive_connection_lifetime=MAX_IDLE_SECONDS,
        timeout=DATABASE_TIMEOUT_SECONDS,
        command_timeout=DATABASE_TIMEOUT_SECONDS,
        reset=_skip_reset,
        server_settings=pooler.server_settings(connector.url),
        **pooler.driver_options(connector.url),
    ) as pool:
        yield DriverPool(pool)


async def _skip_reset(_: asyncpg.Connection) -> None:
    """Do nothing when a connection returns: single statements leave no state."""
