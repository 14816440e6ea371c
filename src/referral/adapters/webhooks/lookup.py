"""Look-ups of host names, bounded in time and number."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

from referral.adapters.webhooks.networks import IpAddress

LOOKUP_TIMEOUT_SECONDS = 5.0

MAX_LOOKUPS = 64
"""Look-ups that run at once; there are fewer webhooks. A host has one at most, however slow its
name servers are.
"""

LookUp = Callable[[str], list[str]]
Found = list[str] | OSError


class HostLookup:
    """Looks up the addresses of hosts; concurrent callers share the look-up of a host.

    The look-ups have threads of their own: those of the event loop would be missing elsewhere.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        """Take a blocking function from a name to addresses, by default the system's resolver."""
        self._look_up = look_up or _look_up_by_system
        self._running: dict[str, asyncio.Task[Found]] = {}
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def addresses(self, host: str) -> list[IpAddress]:
        """Return the addresses in the order of preference; raises `OSError` or `TimeoutError`."""
        task = self._running.get(host)
        if task is None:
            task = self._running[host] = asyncio.create_task(self._run(host))
            task.add_done_callback(lambda _: self._running.pop(host))
        async with asyncio.timeout(LOOKUP_TIMEOUT_SECONDS):
            # After a timeout the thread runs on, and its host and slot stay taken.
            found = await asyncio.shield(task)
        if isinstance(found, OSError):
            raise found
        addresses = []
        for text in dict.fromkeys(found):
            with suppress(ValueError):
                addresses.append(ip_address(text))
        return addresses

    async def _run(self, host: str) -> Found:
        async with self._slots:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[Found] = loop.create_future()

            def run() -> None:
                try:
                    found: Found = self._look_up(host)
                except OSError as error:
                    found = error
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(_set_result, done, found)

            # A daemon: a look-up that hangs must not keep the process from ending.
            Thread(target=run, name="webhook-lookup", daemon=True).start()
            return await done


def _set_result(future: asyncio.Future[Found], found: Found) -> None:
    if not future.done():
        future.set_result(found)


def _look_up_by_system(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise OSError(str(error)) from error
    return [str(sockaddr[0]) for *_, sockaddr in found]
