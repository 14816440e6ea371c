"""Resolution of host names, bounded in time and number."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

from referral.adapters.webhooks.networks import IpAddress

RESOLUTION_TIMEOUT_SECONDS = 5.0

MAX_RESOLUTIONS = 64
"""Hosts that are resolved at once; there are fewer webhooks. A host has one resolution at most,
however slow its name servers are.
"""

ResolveBlocking = Callable[[str], list[str]]
Resolved = list[str] | OSError


class HostResolver:
    """Resolves host names to addresses; concurrent callers share the resolution of a host.

    It has threads of its own: those of the event loop would be missing elsewhere.
    """

    def __init__(self, resolve: ResolveBlocking | None = None) -> None:
        """Take a blocking function from a name to addresses, by default the system's resolver."""
        self._resolve = resolve or _resolve_by_system
        self._running: dict[str, asyncio.Task[Resolved]] = {}
        self._slots = asyncio.Semaphore(MAX_RESOLUTIONS)

    async def resolve(self, host: str) -> list[IpAddress]:
        """Return the addresses in the order of preference; raises `OSError` or `TimeoutError`."""
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.create_task(self._run(host))
            task.add_done_callback(lambda _: self._running.pop(host))
        async with asyncio.timeout(RESOLUTION_TIMEOUT_SECONDS):
            # After a timeout the thread runs on, and its host and slot stay taken.
            resolved = await asyncio.shield(task)
        if isinstance(resolved, OSError):
            raise resolved
        addresses = []
        for text in dict.fromkeys(resolved):
            with suppress(ValueError):
                addresses.append(ip_address(text))
        return addresses

    async def _run(self, host: str) -> Resolved:
        async with self._slots:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Resolved] = loop.create_future()

            def run() -> None:
                try:
                    resolved: Resolved = self._resolve(host)
                except OSError as error:
                    resolved = error
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(_set_result, done, resolved)

            # A daemon: a resolution that hangs must not keep the process from ending.
            Thread(target=run, name="webhook-resolver", daemon=True).start()
            return await done


def _set_result(future: asyncio.Future[Resolved], resolved: Resolved) -> None:
    if not future.done():
        future.set_result(resolved)


def _resolve_by_system(host: str) -> list[str]:
    try:
        resolved = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(str(error)) from error
    return [str(sockaddr[0]) for *_, sockaddr in resolved]
