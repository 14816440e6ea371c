"""Questions to one of several hosts: whether it takes writes, and its timeline."""

import asyncio
from dataclasses import dataclass

import asyncpg

from referral.adapters.failure_causes import describe_cause
from referral.adapters.postgres.errors import DRIVER_ERRORS
from referral.adapters.postgres.hosts import Host

ANSWER_TIMEOUT_SECONDS = 1.0
"""Time that a host has to accept a connection and to answer."""

# The timeline of a primary is that of the WAL that it writes: the one in its control file changes
# at the first checkpoint after a promotion.
STATE = """
SELECT
    (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
    CASE WHEN pg_is_in_recovery()
        THEN (SELECT greatest(min_recovery_end_timeline, timeline_id)
              FROM pg_control_recovery(), pg_control_checkpoint())
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
    END AS timeline,
    pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only') = 'on' AS is_read_only
"""


@dataclass(frozen=True, slots=True)
class ServerState:
    """The state of a server: of which cluster it is, and whether it takes writes."""

    system_identifier: int
    timeline: int
    is_standby: bool
    is_read_only: bool


async def read_state(connection: asyncpg.Connection) -> ServerState:
    """Ask the server of a connection."""
    return ServerState(**await connection.fetchrow(STATE))


class HostProbe:
    """Asks a host, over a connection that stays open until `close`."""

    def __init__(self, host: Host) -> None:
        """Take the host; `ask` connects."""
        self.host = host
        self.state: ServerState | None = None
        """The last answer, or None if there is none."""
        self.failure = "has not answered"
        self._connection: asyncpg.Connection | None = None
        self._asking: asyncio.Task[None] | None = None

    def ask(self) -> "asyncio.Task[None]":
        """Ask in a task, which callers share, and which sets `state` or `failure`."""
        if self._asking is None or self._asking.done():
            self.state = None
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    def close(self) -> None:
        """End a question, and close the connection."""
        if self._asking is not None:
            self._asking.cancel()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                self.state = await read_state(await self._open_connection())
        except (OSError, *DRIVER_ERRORS) as error:
            self.failure = f"cannot be used ({describe_cause(error)})"
        finally:
            if self.state is None:
                self._disconnect()

    async def _open_connection(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self.host.url,
                target_session_attrs="any",
                statement_cache_size=0,
                server_settings={"application_name": "referral probe"},
            )
        return self._connection
