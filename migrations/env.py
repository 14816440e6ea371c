"""Run the migrations over asyncpg, one migrator at a time."""

import asyncio
import os
from typing import Literal

from advanced_alchemy.types import DateTimeUTC
from alembic import context
from sqlalchemy import Connection, text

from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.tables import metadata
from referral.container.configuration import database_url, embedded_postgres
from referral.settings import read_settings

MIGRATION_LOCK_KEY = 7_215_904_531
"""A number of our own among PostgreSQL's advisory locks."""


def migrate(connection: Connection) -> None:
    """Migrate within one transaction; whoever comes second waits and then finds it done."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        render_item=_render,
        include_name=_is_ours,
    )
    with context.begin_transaction():
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK_KEY})"))
        # Rather fail than hold up every request behind a lock that does not come.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.run_migrations()


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Leave pgqueuer's tables to pgqueuer: a revision of ours makes them, no model knows them."""
    return not (kind == "table" and (name or "").startswith("pgqueuer"))


def _render(_: str, item: object, __: object) -> str | Literal[False]:
    """Keep the table base's own type out of the frozen migrations."""
    return "sa.DateTime(timezone=True)" if isinstance(item, DateTimeUTC) else False


async def migrate_url(url: str) -> None:
    """Migrate the database at a URL."""
    engine = make_engine(url, command_timeout=None)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
            await connection.commit()
    finally:
        await engine.dispose()


def main() -> None:
    """Take the URL from the caller, or for Alembic's own command from the settings."""
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
