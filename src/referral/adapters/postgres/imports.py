"""Imports into PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter

import asyncpg
import msgspec

from referral.adapters.postgres.connection import DatabaseConnection, acquire_connection
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.errors import errors_as_unavailable
from referral.adapters.postgres.import_statements import RAISE_USES, STATEMENTS
from referral.adapters.postgres.primary import PrimaryConnector
from referral.adapters.postgres.repositories.audit import PostgresAuditLog
from referral.core.entities.audit import AuditRecord
from referral.core.entities.imports import ImportedRow, ImportKind, ImportProgress, RejectedLine
from referral.core.errors import Conflict

TIMEOUT_SECONDS = 3600.0
"""For statements over whole tables; a batch takes tenths of a second."""

IMPORTED_TABLES = ("users", "codes", "referrals")

# Otherwise the planner, which knows nothing of the temporary table, may read a whole table, or
# compile a statement for longer than it runs.
PLANNER_SETTINGS = (
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
)

BATCH_SETTINGS = f"{PLANNER_SETTINGS}; SET LOCAL synchronous_commit = off"
"""A crash of the server may lose the last batches, together with their progress.

`finish` commits durably, and so everything before it.
"""

START = """
INSERT INTO imports (digest, started_at, progress) VALUES ($1, $2, $3::text::jsonb)
ON CONFLICT DO NOTHING
"""
FIND = "SELECT started_at, progress::text AS progress FROM imports WHERE digest = $1"
SAVE = """
UPDATE imports SET progress = $3::text::jsonb
WHERE digest = $1 AND progress = $2::text::jsonb RETURNING digest
"""
FORGET = "DELETE FROM imports WHERE digest = $1"


@dataclass
class PostgresImportSession:
    """The import of one file. In a dry run one transaction is open, which ends with a rollback."""

    connection: DatabaseConnection
    digest: bytes
    started_at: datetime
    progress: ImportProgress
    is_dry_run: bool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        if self.is_dry_run:
            yield
            await self.connection.execute_sql("DROP TABLE IF EXISTS pg_temp.import_lines")
            return
        async with self.connection.transaction():
            await self.connection.execute_sql(BATCH_SETTINGS)
            yield

    async def add(
        self, kind: ImportKind, rows: Sequence[ImportedRow]
    ) -> tuple[int, list[RejectedLine]]:
        """See the port. The temporary table lasts until the end of the transaction."""
        statements = STATEMENTS[kind]
        await self.connection.execute_sql(statements.create)
        values = attrgetter(*(field.name for field in fields(rows[0])))
        with errors_as_unavailable():
            await self.connection.driver.copy_records_to_table(
                "import_lines", records=map(values, rows), columns=list(statements.columns)
            )
        for statement in statements.prepare:
            await self._run(statement)
        [added] = await self._run(statements.add)
        if added[0] == len(rows):
            return added[0], []
        rejected = await self._run(statements.conflicts)
        return added[0], [RejectedLine(row["line"], row["reason"]) for row in rejected]

    async def _run(self, statement: str) -> list[asyncpg.Record]:
        arguments = (self.started_at,) if "$1" in statement else ()
        return await self.connection.fetch_sql(statement, *arguments)

    async def save(self, progress: ImportProgress) -> None:
        saved = await self.connection.fetch_sql(
            SAVE, self.digest, _encode(self.progress), _encode(progress)
        )
        if not saved:
            raise Conflict("Another process imports the same file.")
        self.progress = progress

    async def record(self, record: AuditRecord) -> None:
        await PostgresAuditLog(self.connection).add(record)

    async def finish(self) -> None:
        await self.connection.execute_sql("SET LOCAL synchronous_commit = on")
        await self.connection.execute_sql(RAISE_USES)
        await self.connection.execute_sql(FORGET, self.digest)


class PostgresImportStore:
    """The tables of the service, beside which an import may run."""

    def __init__(self, database: PrimaryConnector | str) -> None:
        """Connect to this database when an import begins."""
        self._database = database

    @asynccontextmanager
    async def open(
        self, digest: bytes, now: datetime, *, dry_run: bool
    ) -> AsyncIterator[PostgresImportSession]:
        engine = make_engine(self._database, command_timeout=TIMEOUT_SECONDS)
        try:
            async with acquire_connection(engine) as connection:
                if dry_run:
                    await _begin_dry_run(connection)
                yield await _open_session(connection, digest, now, is_dry_run=dry_run)
                if dry_run:
                    await connection.execute_sql("ROLLBACK")
                else:
                    await connection.execute_sql(f"ANALYZE {', '.join(IMPORTED_TABLES)}")
        finally:
            await engine.dispose()


async def _begin_dry_run(connection: DatabaseConnection) -> None:
    """Hide the tables behind temporary copies, so that nobody waits for locks of the dry run."""
    await connection.execute_sql("BEGIN")
    await connection.execute_sql(PLANNER_SETTINGS)
    [schema] = await connection.fetch_sql("SELECT quote_ident(current_schema())")
    for table in (*IMPORTED_TABLES, "imports"):
        source = f"{schema[0]}.{table}"
        await connection.execute_sql(
            f"CREATE TEMP TABLE {table} (LIKE {source} INCLUDING ALL) ON COMMIT DROP"
        )
        if table != "imports":
            await connection.execute_sql(f"INSERT INTO pg_temp.{table} SELECT * FROM {source}")  # noqa: S608 - names of tables


async def _open_session(
    connection: DatabaseConnection, digest: bytes, now: datetime, *, is_dry_run: bool
) -> PostgresImportSession:
    await connection.execute_sql(START, digest, now, _encode(ImportProgress()))
    [row] = await connection.fetch_sql(FIND, digest)
    progress = msgspec.json.decode(row["progress"], type=ImportProgress)
    return PostgresImportSession(connection, digest, row["started_at"], progress, is_dry_run)


def _encode(progress: ImportProgress) -> str:
    return msgspec.json.encode(progress).decode()
