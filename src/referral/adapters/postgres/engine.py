"""SQLAlchemy's engine over asyncpg: the pool of connections, their timeouts and settings."""

import socket
from contextlib import suppress
from typing import Any

import asyncpg
from advanced_alchemy.config import EngineConfig, SQLAlchemyAsyncConfig
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.postgres import pooler
from referral.adapters.postgres.primary import PrimaryConnector

DATABASE_TIMEOUT_SECONDS = 1.5
"""Time that a request waits for a connection, and for the result of a statement."""

CLOSE_TIMEOUT_SECONDS = 0.2

KEEPALIVE_OPTIONS = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 25_000,
}
"""A connection over a cut network ends after 25 s, also where no statement has a timeout."""

POOL_SIZE = 10
"""Connections of a process: few, since more of them queue for the same rows inside the server."""


class QuickClosingConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that closes within `CLOSE_TIMEOUT_SECONDS`: a hung server does not reply."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:  # noqa: ANN401 - asyncpg's
        """Let the system notice a network that is cut."""
        super().__init__(protocol, transport, *args)
        _keep_alive(transport.get_extra_info("socket"))

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        """Close; asyncpg drops the connection after the timeout."""
        timeout = min(timeout or CLOSE_TIMEOUT_SECONDS, CLOSE_TIMEOUT_SECONDS)
        with suppress(TimeoutError):
            await super().close(timeout=timeout)


def make_engine(
    database: PrimaryConnector | str,
    *,
    command_timeout: float | None = DATABASE_TIMEOUT_SECONDS,
    connection_class: type[asyncpg.Connection] = QuickClosingConnection,
) -> AsyncEngine:
    """Make the engine for a connector or a `postgresql://` URL; `command_timeout` is in seconds."""
    connector = PrimaryConnector.of(database)
    return SQLAlchemyAsyncConfig(
        connection_string="postgresql+asyncpg://",
        engine_config=EngineConfig(
            hide_parameters=True,  # errors and logs must not contain e-mail addresses or hashes
            pool_size=POOL_SIZE,
            max_overflow=0,
            connect_args={
                "async_creator_fn": connector.connect,
                "connection_class": connection_class,
                "timeout": DATABASE_TIMEOUT_SECONDS,
                "command_timeout": command_timeout,
                "server_settings": pooler.server_settings(connector.url),
                **pooler.dialect_options(connector.url),
            },
        ),
    ).get_engine()


def _keep_alive(transport_socket: socket.socket) -> None:
    if transport_socket.family == socket.AF_UNIX:
        return
    transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_OPTIONS.items():
        if option := getattr(socket, name, None):  # not every system has all of them
            transport_socket.setsockopt(socket.IPPROTO_TCP, option, value)
