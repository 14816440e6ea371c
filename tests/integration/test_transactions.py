"""What a transaction leaves behind that did not come to its end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import text

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.database import (
    POOL_SIZE,
    PostgresDatabase,
    QuickClosingConnection,
    make_engine,
)
from referral.core.errors import Unavailable
from tests.contracts.rows import make_user
from tests.support.fakes.ports import FakeFingerprinter
from tests.support.waiting import wait_for_value

pytestmark = pytest.mark.usefixtures("production_timeouts")

OPEN_TRANSACTIONS_SQL = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
async def test_what_was_broken_off_is_undone(
    database: PostgresDatabase, database_url: str, end: str
) -> None:
    """Nothing of it is stored, no transaction stays open, and every place is free again."""
    user, inside = make_user(), asyncio.Event()

    async def store() -> None:
        async with database.begin() as records:
            await records.users.add(user)
            inside.set()
            if end == "timed out":
                raise TimeoutError
            await asyncio.Event().wait()

    for _ in range(POOL_SIZE + 1):
        inside.clear()
        task = asyncio.create_task(store())
        async with asyncio.timeout(10):
            await inside.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    watcher = await asyncpg.connect(database_url)

    async def nothing_is_open() -> bool:
        return not await watcher.fetchval(OPEN_TRANSACTIONS_SQL)

    await wait_for_value(nothing_is_open)
    await watcher.close()
    async with database.read() as records:
        assert await records.users.find(user.id) is None


async def test_a_connection_that_was_cut_is_not_handed_out(
    database: PostgresDatabase, database_url: str
) -> None:
    """A pooled connection that the server has closed is replaced before anybody notices."""
    async with database.read() as records:
        driver = records.session.driver
    admin = await asyncpg.connect(database_url)
    await admin.execute("SELECT pg_terminate_backend($1)", driver.get_server_pid())
    await admin.close()

    async def is_cut() -> bool:
        return bool(driver.is_closed())

    await wait_for_value(is_cut)
    assert await database.check() == "ok"


SendQuery = Callable[[DatabaseSession, str], Awaitable[object]]

QUERY_PATHS: dict[str, SendQuery] = {
    "through SQLAlchemy": lambda session, statement: session.execute(text(statement)),
    "rows by the driver": lambda session, statement: session.fetch_sql(statement),
    "by the driver": lambda session, statement: session.execute_sql(statement),
}


@pytest.mark.parametrize("way", QUERY_PATHS)
async def test_a_call_that_gets_no_answer_in_time_is_an_outage(database_url: str, way: str) -> None:
    """The error comes from the call itself, and its connection is not used again."""
    engine = make_engine(database_url, command_timeout=0.1)
    database = PostgresDatabase(engine, FakeFingerprinter())
    async with database.read() as records:
        driver = records.session.driver
        with pytest.raises(Unavailable) as outage:
            await QUERY_PATHS[way](records.session, "SELECT pg_sleep(60)")
    assert isinstance(outage.value.__cause__, TimeoutError)
    assert driver.is_closed()
    assert await database.check() == "ok"
    await engine.dispose()


async def test_a_value_that_does_not_fit_is_no_outage(database: PostgresDatabase) -> None:
    """The driver refuses it before the server sees it; waiting would not help."""
    async with database.read() as records:
        with pytest.raises(asyncpg.DataError):
            await records.session.fetch_sql("SELECT $1::int", 10**26)
        with pytest.raises(Exception, match="value out of int32 range") as refused:
            await records.session.execute(text("SELECT (:number)::int"), {"number": 10**26})
        assert not isinstance(refused.value, Unavailable)
    assert await database.check() == "ok"


class FailingDriver(QuickClosingConnection):
    """A connection that is cut before the ROLLBACK."""

    async def execute(self, query: str, *args: object, **options: object) -> str:
        if query == "ROLLBACK":
            raise asyncpg.ConnectionDoesNotExistError("connection was closed")
        return str(await super().execute(query, *args, **options))


async def test_a_rollback_that_fails_does_not_hide_why_it_was_needed(database_url: str) -> None:
    """The first error goes on, and the connection is closed, which undoes the transaction."""
    engine = make_engine(database_url, connection_class=FailingDriver)
    database, user = PostgresDatabase(engine, FakeFingerprinter()), make_user()
    drivers = []

    async def store() -> None:
        async with database.begin() as records:
            drivers.append(records.session.driver)
            await records.users.add(user)
            raise LookupError

    with pytest.raises(LookupError):
        await store()
    assert drivers[0].is_closed()
    async with database.read() as records:
        assert await records.users.find(user.id) is None
    await engine.dispose()


async def test_an_outage_that_is_passed_over_leaves_no_broken_connection(
    database_url: str,
) -> None:
    """Though the block ends well, the next one gets another connection."""
    engine = make_engine(database_url, command_timeout=0.1)
    database = PostgresDatabase(engine, FakeFingerprinter())
    async with database.read() as records:
        broken = records.session.driver
        with suppress(Unavailable):
            await records.session.fetch_sql("SELECT pg_sleep(60)")
    async with database.read() as records:
        assert records.session.driver is not broken
    await engine.dispose()
