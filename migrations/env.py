"""Runs the migrations over asyncpg; an advisory lock admits one process at a time."""

import asyncio
import os
from typing import Literal

from advanced_alchemy.types import DateTimeUTC
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.tables import metadata
from referral.container.configuration import database_url, embedded_postgres
from referral.settings import read_settings

MIGRATION_LOCK_KEY = 7_215_904_531
"""Key of the advisory lock, unique in this service."""

LOCK_POLL_SECONDS = 0.2


def migrate(connection: Connection) -> None:
    """Migrate in one transaction, except for revisions that build an index concurrently."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        render_item=_render,
        include_name=_is_ours,
    )
    with context.begin_transaction():
        # A migration that waits for a lock blocks every request on that table: it fails instead.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


async def acquire_lock(connection: AsyncConnection) -> None:
    """Begin a transaction that holds the lock: a second process waits, and has nothing to do then.

    The concurrent build of an index waits for the snapshots of other transactions. So a process
    that waits for the lock must not have one: it asks repeatedly, in a transaction each.
    """
    acquire = text(f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK_KEY})")
    while not (await connection.execute(acquire)).scalar_one():
        await connection.rollback()
        await asyncio.sleep(LOCK_POLL_SECONDS)
    # The transaction idles during the migration. This statement also ends the snapshot of the last.
    await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Exclude what `tables.py` does not define: pgqueuer's tables, partitions of the audit log."""
    return not (kind == "table" and (name or "").startswith(("pgqueuer", "audit_log_")))


def _render(_: str, item: object, __: object) -> str | Literal[False]:
    """Render `DateTimeUTC` as SQLAlchemy's own type, so that revisions need no other import."""
    return "sa.DateTime(timezone=True)" if isinstance(item, DateTimeUTC) else False


async def migrate_url(url: str) -> None:
    """Migrate the database at a `postgresql://` URL."""
    engine = make_engine(url, command_timeout=None)
    try:
        async with engine.connect() as lock, engine.connect() as connection:
            await acquire_lock(lock)
            await connection.run_sync(migrate)
            await connection.commit()
    finally:
        await engine.dispose()


def main() -> None:
    """Migrate the caller's URL or, for the `alembic` command, the database of the settings."""
    if url := context.config.attributes.get("url"):
        asyncio.run(migrate_url(url))
        return
    settings = read_settings(os.environ)
    embedded = embedded_postgres(settings)
    if embedded:
        embedded.start()
    try:
        asyncio.run(migrate_url(database_url(settings)))
    finally:
        if embedded:
            embedded.stop()


main()
