"""One connection for the time of a transaction: asked through SQLAlchemy, or by the driver itself.

A statement through SQLAlchemy costs the process a quarter of a millisecond, by the driver a tenth
of that. So those of every day are a `Query`, compiled once; those that are put together anew, or
are rare, are executed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from sqlalchemy import CursorResult, Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DIALECT = dialect()  # type: ignore[no-untyped-call]


class Query:
    """A statement of SQLAlchemy as the driver takes it; its values are given by name."""

    def __init__(self, statement: ClauseElement) -> None:
        """Compile it, at the start of the process."""
        compiled = cast("SQLCompiler", statement.compile(dialect=DIALECT))
        self.text = str(compiled)
        self._names = compiled.positiontup or []
        known = compiled.params.items()
        self._constants = {name: value for name, value in known if value is not None}

    def arguments(self, values: dict[str, object]) -> list[object]:
        """Return what stands for $1, $2 and so on."""
        return [values[name] if name in values else self._constants[name] for name in self._names]


def values_of(entity: "DataclassInstance") -> dict[str, object]:
    """Return the fields of an entity by name; `dataclasses.asdict` copies each value as well."""
    return {field.name: getattr(entity, field.name) for field in fields(entity)}


class DatabaseSession:
    """A connection of the engine's, with what both ways of asking have in common."""

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection) -> None:
        """Take a connection in autocommit, and the driver's own below it."""
        self._connection = connection
        self.driver = driver

    async def execute(
        self, statement: Executable, values: dict[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run a statement through SQLAlchemy."""
        return await self._connection.execute(statement, values)

    async def fetch(self, query: Query, **values: object) -> list[asyncpg.Record]:
        """Run a query by the driver."""
        rows: list[asyncpg.Record] = await self.driver.fetch(query.text, *query.arguments(values))
        return rows

    async def fetch_one(self, query: Query, **values: object) -> asyncpg.Record | None:
        """Run a query of which at most one row comes back."""
        return await self.driver.fetchrow(query.text, *query.arguments(values))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end of the block, or undo it."""
        await self.driver.execute("BEGIN")
        try:
            yield
        except Exception as error:
            # Who got no answer in time (an `OSError`) does not wait for another one.
            if not (isinstance(error, OSError) or self.driver.is_closed()):
                await self.driver.execute("ROLLBACK")
            raise
        await self.driver.execute("COMMIT")


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[DatabaseSession]:
    """Take a connection from the pool of an engine in autocommit, and give it back.

    One that was left in the middle of something, by a time-out or a cancelled request, is closed.
    """
    connection, driver = await _open(engine)
    try:
        yield DatabaseSession(connection, driver)
    except BaseException as error:
        left = isinstance(error, OSError) or not isinstance(error, Exception)
        if left or driver.is_closed() or driver.is_in_transaction():
            await connection.invalidate()
        raise
    finally:
        await connection.close()


async def _open(engine: AsyncEngine) -> tuple[AsyncConnection, asyncpg.Connection]:
    """Connect, past those in the pool that the server has closed."""
    while True:
        connection = await engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if not driver.is_closed():
            return connection, driver
        await connection.invalidate()
        await connection.close()
