"""SQLAlchemy's engine over asyncpg: the pool of connections, their timeouts and settings."""

import asyncpg
from advanced_alchemy.config import EngineConfig, SQLAlchemyAsyncConfig
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.postgres import pooler

DATABASE_TIMEOUT_SECONDS = 1.5
"""Time that a request waits for a connection, and for the result of a statement."""

CLOSE_TIMEOUT_SECONDS = 0.2

POOL_SIZE = 10
"""Connections of a process: few, since more of them queue for the same rows inside the server."""


class QuickClosingConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that closes within `CLOSE_TIMEOUT_SECONDS`: a hung server does not reply."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        """Close, or raise `TimeoutError`; SQLAlchemy then drops the connection."""
        timeout = min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS)
        await super().close(timeout=timeout)


def make_engine(
    url: str,
    *,
    command_timeout: float | None = DATABASE_TIMEOUT_SECONDS,
    connection_class: type[asyncpg.Connection] = QuickClosingConnection,
) -> AsyncEngine:
    """Make the engine for a `postgresql://` URL; `command_timeout` is in seconds."""
    parsed = make_url(pooler.driver_url(url))
    if mode := parsed.query.get("sslmode"):  # PostgreSQL's name; SQLAlchemy's is "ssl"
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    parsed = parsed.set(drivername="postgresql+asyncpg")
    return SQLAlchemyAsyncConfig(
        connection_string=parsed.render_as_string(hide_password=False),
        engine_config=EngineConfig(
            hide_parameters=True,  # errors and logs must not contain e-mail addresses or hashes
            pool_size=POOL_SIZE,
            max_overflow=0,
            connect_args={
                "connection_class": connection_class,
                "timeout": DATABASE_TIMEOUT_SECONDS,
                "command_timeout": command_timeout,
                "server_settings": pooler.server_settings(url),
                **pooler.dialect_options(url),
            },
        ),
    ).get_engine()
