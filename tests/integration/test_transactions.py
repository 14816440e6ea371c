"""Transactions that are cancelled, time out or lose their connection."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import text

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import POOL_SIZE, QuickClosingConnection, make_engine
from referral.core.errors import Unavailable
from tests.contracts.rows import make_user
from tests.support.fakes.security import FakeFingerprinter
from tests.support.waiting import wait_for_value

pytestmark = pytest.mark.usefixtures("production_timeouts")

OPEN_TRANSACTIONS_SQL = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
async def test_aborted_transaction_is_rolled_back(
    database: PostgresDatabase, database_url: str, end: str
) -> None:
    """Nothing is stored, no transaction stays open, and the connection is free."""
    user, started = make_user(), asyncio.Event()

    async def store() -> None:
        async with database.begin() as repositories:
            await repositories.users.add(user)
            started.set()
            if end == "timed out":
                raise TimeoutError
            await asyncio.Event().wait()

    for _ in range(POOL_SIZE + 1):
        started.clear()
        task = asyncio.create_task(store())
        async with asyncio.timeout(10):
            await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    watcher = await asyncpg.connect(database_url)

    async def all_are_closed() -> bool:
        return not await watcher.fetchval(OPEN_TRANSACTIONS_SQL)

    await wait_for_value(all_are_closed)
    await watcher.close()
    async with database.read() as repositories:
        assert await repositories.users.find(user.id) is None


async def test_closed_connection_is_replaced(database: PostgresDatabase, database_url: str) -> None:
    """The pool replaces a connection that the server has closed."""
    async with database.read() as repositories:
        driver = repositories.connection.driver
    admin = await asyncpg.connect(database_url)
    await admin.execute("SELECT pg_terminate_backend($1)", driver.get_server_pid())
    await admin.close()

    async def is_cut() -> bool:
        return bool(driver.is_closed())

    await wait_for_value(is_cut)
    assert await database.check() == "ok"


SendQuery = Callable[[DatabaseConnection, str], Awaitable[object]]

QUERY_PATHS: dict[str, SendQuery] = {
    "one row": lambda connection, statement: connection.fetch_one(Statement(text(statement))),
    "rows": lambda connection, statement: connection.fetch_sql(statement),
    "command tag": lambda connection, statement: connection.execute_sql(statement),
}


@pytest.mark.parametrize("path", QUERY_PATHS)
async def test_query_timeout_is_unavailable(database_url: str, path: str) -> None:
    """The query raises Unavailable, and its connection is closed."""
    engine = make_engine(database_url, command_timeout=0.1)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    async with database.read() as repositories:
        driver = repositories.connection.driver
        with pytest.raises(Unavailable) as error:
            await QUERY_PATHS[path](repositories.connection, "SELECT pg_sleep(60)")
    assert isinstance(error.value.__cause__, TimeoutError)
    assert driver.is_closed()
    assert await database.check() == "ok"
    await engine.dispose()


async def test_read_only_server_loses_its_connection(database: PostgresDatabase) -> None:
    """Its refusal is an outage and not a bug, and the next transaction gets another connection."""
    async with database.read() as repositories:
        driver = repositories.connection.driver
        await driver.execute("SET default_transaction_read_only = on")

    async def store() -> None:
        async with database.begin() as repositories:
            assert repositories.connection.driver is driver
            await repositories.users.add(make_user())

    with pytest.raises(Unavailable):
        await store()
    assert driver.is_closed()
    assert await database.check() == "ok"


async def test_read_only_server_is_not_healthy(database: PostgresDatabase) -> None:
    """The check closes the connection, so that it does not fail for ever."""
    async with database.read() as repositories:
        await repositories.connection.driver.execute("SET default_transaction_read_only = on")
    with pytest.raises(Unavailable):
        await database.check()
    assert await database.check() == "ok"


async def test_value_out_of_range_is_not_unavailable(database: PostgresDatabase) -> None:
    """The driver rejects the value before it sends the query, so a retry would not help."""
    async with database.read() as repositories:
        with pytest.raises(asyncpg.DataError):
            await repositories.connection.fetch_sql("SELECT $1::int", 10**26)
    assert await database.check() == "ok"


class FailingDriver(QuickClosingConnection):
    """A connection that is lost before ROLLBACK."""

    async def execute(self, query: str, *args: object, **options: object) -> str:
        if query == "ROLLBACK":
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return str(await super().execute(query, *args, **options))


async def test_failed_rollback_keeps_the_first_error(database_url: str) -> None:
    """The first error propagates, and the connection is closed, which rolls back."""
    engine = make_engine(database_url, connection_class=FailingDriver)
    database, user = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue), make_user()
    drivers = []

    async def store() -> None:
        async with database.begin() as repositories:
            drivers.append(repositories.connection.driver)
            await repositories.users.add(user)
            raise LookupError

    with pytest.raises(LookupError):
        await store()
    assert drivers[0].is_closed()
    async with database.read() as repositories:
        assert await repositories.users.find(user.id) is None
    await engine.dispose()


async def test_connection_that_closes_too_slowly_is_dropped(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an error, which the pool would log with a traceback."""
    monkeypatch.setattr("referral.adapters.postgres.engine.CLOSE_TIMEOUT_SECONDS", 1e-9)
    connection = await asyncpg.connect(database_url, connection_class=QuickClosingConnection)
    await connection.close()
    assert connection.is_closed()


async def test_suppressed_outage_discards_the_connection(
    database_url: str,
) -> None:
    """The next block gets another connection, even if the block suppressed the error."""
    engine = make_engine(database_url, command_timeout=0.1)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    async with database.read() as repositories:
        broken = repositories.connection.driver
        with suppress(Unavailable):
            await repositories.connection.fetch_sql("SELECT pg_sleep(60)")
    async with database.read() as repositories:
        assert repositories.connection.driver is not broken
    await engine.dispose()
