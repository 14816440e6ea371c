"""What a transaction leaves behind that did not come to its end."""

import asyncio

import asyncpg
import pytest

from referral.adapters.postgres.database import POOL, PostgresDatabase
from tests.contracts.rows import make_user
from tests.waiting import until_found

OPEN = """
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

    for _ in range(POOL + 1):
        inside.clear()
        task = asyncio.create_task(store())
        async with asyncio.timeout(10):
            await inside.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    watcher = await asyncpg.connect(database_url)

    async def nothing_is_open() -> bool:
        return not await watcher.fetchval(OPEN)

    await until_found(nothing_is_open)
    await watcher.close()
    async with database.read() as records:
        assert await records.users.get(user.id) is None


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

    await until_found(is_cut)
    assert await database.check() == "ok"
