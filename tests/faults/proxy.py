"""A small proxy for TCP and Unix sockets on loopback, which is slow, silent or rude as it is told.

See docs/decisions/0071 for what else there is.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

Target = Path | tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CHUNK = 65_536


class Proxy:
    """Passes bytes on in a thread of its own; its three attributes may be changed at any time."""

    def __init__(self, listen: Target, target: Target) -> None:
        """Take where to listen and whom to speak to; starts nothing."""
        self.latency = 0.0
        self.is_silent = False
        """A black hole: bytes are taken and never arrive, and connections stay open."""
        self._listen = listen
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._do(self._serve())

    def blackhole_open_connections(self) -> None:
        """Pass nothing on any more for the connections there are; new ones work."""
        self._forgotten |= self._open

    def reset(self) -> None:
        """Cut every connection with a TCP reset, or as near to it as the socket can come."""
        self._do(self._cut())

    def stop(self) -> None:
        """Cut all, and listen no more."""
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Awaitable[object]) -> None:
        async def wait() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(10)

    async def _serve(self) -> None:
        self._server = await _listen(self._listen, self._accept)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        while self._open:
            await self._cut()
            await asyncio.sleep(0)

    async def _cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await _connect(self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, there[1]}
        self._open |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, there[1]))
                group.create_task(self._pass_on(there[0], writer))
        finally:
            self._open -= both

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await source.read(CHUNK):
                await asyncio.sleep(self.latency)
                if not self.is_silent and sink not in self._forgotten:
                    sink.write(part)
                    await sink.drain()
        sink.close()


async def _listen(
    where: Target,
    accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.Server:
    if isinstance(where, Path):
        return await asyncio.start_unix_server(accept, where)
    return await asyncio.start_server(accept, *where)


async def _connect(where: Target) -> Streams:
    if isinstance(where, Path):
        return await asyncio.open_unix_connection(where)
    return await asyncio.open_connection(*where)
