"""Connections to the primary: the host of the URL that takes writes.

With several hosts, a process that has connections asks all of them every second. Each promotion
begins a timeline with a higher number: of two servers that take writes, the one with the lower
number is an old primary. Decision 130 says what this promises.
"""

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import structlog

from referral.adapters.postgres.errors import DRIVER_ERRORS, NoPrimaryError
from referral.adapters.postgres.host_probe import HostProbe, ServerState, read_state
from referral.adapters.postgres.hosts import Host, parse_hosts

ONLY_HOST_FAULTS = {
    "in_hot_standby": "it is a standby, which takes no writes",
    "default_transaction_read_only": "it is read-only",
}
"""What a server that takes no writes says in its greeting, by the name of the setting."""

WATCH_SECONDS = 1.0
"""Interval in which all hosts are asked."""

CONNECT_TIMEOUT_SECONDS = 1.0
"""Time limit of a connection to one of several hosts."""

STRAGGLER_SECONDS = 0.2
"""Time that the other hosts have to answer after one that takes writes."""


class PrimaryConnector:
    """Opens connections to the primary, and closes those to a server that no longer is."""

    def __init__(self, url: str) -> None:
        """Take a `postgresql://` URL; the first connection asks the hosts."""
        self.url = url
        self._hosts = parse_hosts(url)
        self._probes = [HostProbe(host) for host in self._hosts]
        self._primary: Host | None = None
        self._system_identifier: int | None = None
        self._timeline = 0
        self._connections: WeakKeyDictionary[asyncpg.Connection, Host] = WeakKeyDictionary()
        self._search: asyncio.Task[Host | None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, database: "PrimaryConnector | str") -> "PrimaryConnector":
        """Return the connector itself, or a new one for a URL."""
        return cls(database) if isinstance(database, str) else database

    async def connect(
        self,
        _: str | None = None,
        *,
        timeout: float,  # noqa: ASYNC109 - asyncpg's
        **options: Any,  # noqa: ANN401 - asyncpg's
    ) -> asyncpg.Connection:
        """Connect with options of asyncpg; `timeout` is in seconds.

        Raises `NoPrimaryError`, `TimeoutError`, or an error of asyncpg. A pool passes a first
        argument, which is ignored.
        """
        if len(self._hosts) == 1:
            return await _connect_to_only_host(self._hosts[0], timeout=timeout, **options)
        async with asyncio.timeout(timeout):
            if (known := self._primary) is not None:
                try:
                    return await self._connect_to(known, **options)
                except (OSError, *DRIVER_ERRORS):
                    if self._primary == known:  # another caller may have found a new one
                        self._primary = None
            return await self._connect_to(await self._find_primary(), **options)

    async def _connect_to(self, host: Host, **options: Any) -> asyncpg.Connection:  # noqa: ANN401
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            connection = await asyncpg.connect(host.url, target_session_attrs="any", **options)
            try:
                await self._admit(connection, host)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _admit(self, connection: asyncpg.Connection, host: Host) -> None:
        """Raise `NoPrimaryError` unless the connection is one to the primary."""
        state = await read_state(connection)
        self._learn([state])
        if fault := self._fault(state):
            detail = f"{host} {fault}"
            raise NoPrimaryError(detail)
        self._connections[connection] = host
        if not self._is_watching:
            self._watch = asyncio.create_task(self._watch_hosts())

    async def _find_primary(self) -> Host:
        primary = await asyncio.shield(self._start_search())
        if primary is None:
            raise NoPrimaryError("; ".join(map(self._describe, self._probes)))
        return primary

    def _start_search(self) -> "asyncio.Task[Host | None]":
        """Ask all hosts in a task, which concurrent callers share."""
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._search_primary())
        return self._search

    async def _search_primary(self) -> Host | None:
        answers = [probe.ask() for probe in self._probes]
        await asyncio.wait(answers, timeout=STRAGGLER_SECONDS)
        if not self._choose_primary():
            await asyncio.wait(answers)
            self._choose_primary()
        if not self._is_watching:
            self._close_probes()
        return self._primary

    def _choose_primary(self) -> bool:
        """Choose among the hosts that have answered; return whether one takes writes."""
        states = {probe.host: probe.state for probe in self._probes if probe.state is not None}
        self._learn(list(states.values()))
        found = [host for host, state in states.items() if not self._fault(state)]
        if found and self._primary not in found:
            (self._primary, *_) = found
            structlog.get_logger().info("primary found", host=str(self._primary))
        elif not found:
            self._primary = None
        if found:
            self._drop_connections()
        return bool(found)

    def _learn(self, states: list[ServerState]) -> None:
        """Remember the cluster and its newest timeline."""
        identifiers = {state.system_identifier for state in states}
        if self._system_identifier is None and len(identifiers) == 1:
            (self._system_identifier,) = identifiers
        timelines = (s.timeline for s in states if s.system_identifier == self._system_identifier)
        self._timeline = max(self._timeline, *timelines, 0)

    def _fault(self, state: ServerState) -> str:
        """Return why a server must not be written to, or nothing."""
        if state.system_identifier != self._system_identifier:
            return "belongs to another cluster than the other hosts"
        if state.is_standby:
            return "is a standby"
        if state.is_read_only:
            return "is read-only"
        if state.timeline < self._timeline:
            return f"is an old primary (timeline {state.timeline}, the newest is {self._timeline})"
        return ""

    def _describe(self, probe: HostProbe) -> str:
        return f"{probe.host} {self._fault(probe.state) if probe.state else probe.failure}"

    def _drop_connections(self) -> None:
        """Abort the connections to other hosts, also those in use: their calls fail."""
        others = [one for one, host in self._connections.items() if host != self._primary]
        for connection in others:
            connection.terminate()
            del self._connections[connection]
        if others:
            structlog.get_logger().warning("connections dropped", connections=len(others))

    async def _watch_hosts(self) -> None:
        try:
            while any(not connection.is_closed() for connection in list(self._connections)):
                await asyncio.sleep(WATCH_SECONDS)
                await asyncio.shield(self._start_search())
        finally:
            self._close_probes()

    @property
    def _is_watching(self) -> bool:
        return self._watch is not None and not self._watch.done()

    def _close_probes(self) -> None:
        for probe in self._probes:
            probe.close()


async def _connect_to_only_host(host: Host, **options: Any) -> asyncpg.Connection:  # noqa: ANN401
    connection = await asyncpg.connect(host.url, target_session_attrs="any", **options)
    settings = connection.get_settings()
    for name, state in ONLY_HOST_FAULTS.items():
        if getattr(settings, name, "off") == "on":
            connection.terminate()
            raise NoPrimaryError(state)
    return connection
