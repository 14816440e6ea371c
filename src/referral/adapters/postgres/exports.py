"""Exports of users, codes and referrals from PostgreSQL, for `referral import`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from referral.adapters.postgres.connection import acquire_connection
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.errors import errors_as_unavailable
from referral.adapters.postgres.primary import PrimaryConnector
from referral.core.entities.imports import ImportKind

ROWS_PER_FETCH = 5_000
TIMEOUT_SECONDS = 3600.0

# Columns without a value are left out of a line. The order is that of an index.
QUERIES = {
    ImportKind.USER: """
        SELECT id, email, external_id, CASE WHEN erased_at IS NULL THEN email_verified END
            AS email_verified, nullif(password_hash, '!') AS password_hash, locale, role,
            created_at, CASE WHEN blocked_at IS NOT NULL THEN true END AS blocked,
            notify_on_referral, CASE WHEN erased_at IS NOT NULL THEN true END AS erased
        FROM users ORDER BY id""",
    ImportKind.CODE: """
        SELECT user_id AS user, text AS code, expires_at, id, max_uses, uses, enabled AS active,
            created_at, CASE WHEN deleted_at IS NOT NULL THEN true END AS deleted
        FROM codes ORDER BY id""",
    ImportKind.REFERRAL: """
        SELECT referred_id AS user, referrer_id AS referrer, code, status,
            CASE WHEN held THEN true END AS held, reason, joined_at
        FROM referrals ORDER BY referred_id""",
}


class PostgresExporter:
    """Reads the tables as of one moment, beside a running service."""

    def __init__(self, database: PrimaryConnector | str) -> None:
        """Connect to this database when an export begins."""
        self._database = database

    @asynccontextmanager
    async def lines(self) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """Return the lines, some thousands at a time: users, codes, then referrals."""
        engine = make_engine(self._database, command_timeout=TIMEOUT_SECONDS)
        try:
            async with acquire_connection(engine) as connection:
                await connection.execute_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield _read(connection.driver)
                await connection.execute_sql("COMMIT")
        finally:
            await engine.dispose()


async def _read(driver: asyncpg.Connection) -> AsyncIterator[list[bytes]]:
    for kind, query in QUERIES.items():
        with errors_as_unavailable():
            cursor = await driver.cursor(query)
            rows = await cursor.fetch(ROWS_PER_FETCH)
        while rows:
            yield [_encode(kind, row) for row in rows]
            with errors_as_unavailable():
                rows = await cursor.fetch(ROWS_PER_FETCH)


def _encode(kind: ImportKind, row: asyncpg.Record) -> bytes:
    values = {name: value for name, value in row.items() if value is not None}
    return msgspec.json.encode({"type": kind} | values) + b"\n"
