"""One connection for the time of a transaction: asked through SQLAlchemy, or by the driver itself.

A statement through SQLAlchemy costs the process a quarter of a millisecond, by the driver a tenth
of that. So those of every day are a `Query`, compiled once; those that are put together anew, or
are rare, are executed.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import structlog
from sqlalchemy import CursorResult, Executable
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement

from referral.adapters.postgres.outages import errors_as_unavailable
from referral.core.errors import Unavailable

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
    """A connection of the engine's, with what both ways of asking have in common.

    Each call raises `Unavailable` when the database cannot answer. What the code between the calls
    raises is its own affair, and goes on as it is.
    """

    def __init__(self, connection: AsyncConnection, driver: asyncpg.Connection) -> None:
        """Take a connection in autocommit, and the driver's own below it."""
        self._connection = connection
        self.driver = driver
        self._is_broken = False

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is in the state that it was taken in."""
        return not (self._is_gone or self.driver.is_in_transaction())

    async def execute(
        self, statement: Executable, values: dict[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Run a statement through SQLAlchemy."""
        with self._call():
            return await self._connection.execute(statement, values)

    async def fetch(self, query: Query, **values: object) -> list[asyncpg.Record]:
        """Run a query by the driver."""
        return await self.fetch_sql(query.text, *query.arguments(values))

    async def fetch_one(self, query: Query, **values: object) -> asyncpg.Record | None:
        """Run a query of which at most one row comes back."""
        arguments = query.arguments(values)
        with self._call():
            return await self.driver.fetchrow(query.text, *arguments)

    async def fetch_sql(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """Run a statement that is text already, and return its rows."""
        with self._call():
            rows: list[asyncpg.Record] = await self.driver.fetch(statement, *arguments)
        return rows

    async def execute_sql(self, statement: str, *arguments: object) -> str:
        """Run a statement that is text already, and return PostgreSQL's word for what it did."""
        with self._call():
            status: str = await self.driver.execute(statement, *arguments)
        return status

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end of the block, or undo it."""
        await self.execute_sql("BEGIN")
        try:
            yield
        except Exception:
            await self._roll_back()
            raise
        await self.execute_sql("COMMIT")

    @property
    def _is_gone(self) -> bool:
        return self._is_broken or bool(self.driver.is_closed())

    async def _roll_back(self) -> None:
        """Roll back, unless a call was left without its answer: the next would wait as long.

        A ROLLBACK that fails does not take the place of the error that led to it. The connection
        is closed then, which undoes the transaction as well.
        """
        if self._is_gone:
            return
        try:
            await self.execute_sql("ROLLBACK")
        except Unavailable as error:
            cause = type(error.__cause__).__name__
            structlog.get_logger().warning("transaction not rolled back", cause=cause)

    @contextmanager
    def _call(self) -> Iterator[None]:
        with errors_as_unavailable():
            try:
                yield
            except BaseException as error:
                # A time-out or a cancelled request: the connection is in the middle of something.
                if isinstance(error, OSError) or not isinstance(error, Exception):
                    self._is_broken = True
                raise


@asynccontextmanager
async def acquire_session(engine: AsyncEngine) -> AsyncIterator[DatabaseSession]:
    """Take a connection from the pool of an engine in autocommit, and give it back.

    One that was left in the middle of something, by a time-out or a cancelled request, is closed.
    """
    with errors_as_unavailable():
        connection, driver = await _check_out(engine)
    session = DatabaseSession(connection, driver)
    try:
        yield session
    finally:
        if not session.is_reusable:
            await connection.invalidate()
        await connection.close()


async def _check_out(engine: AsyncEngine) -> tuple[AsyncConnection, asyncpg.Connection]:
    """Connect, past those in the pool that the server has closed."""
    while True:
        connection = await engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if not driver.is_closed():
            return connection, driver
        await connection.invalidate()
        await connection.close()
