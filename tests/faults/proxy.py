"""A proxy for TCP and Unix sockets on loopback that can be slow, silent or reset connections.

See docs/decisions/0071 for alternatives.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

Target = Path | tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CHUNK = 65_536
HELD_POLL_SECONDS = 0.02


class Proxy:
    """Forwards bytes in its own thread; `latency` and the switches may change at any time."""

    def __init__(self, listen: Target, target: Target) -> None:
        """Store the address to listen on and the target; starts nothing."""
        self.latency = 0.0
        self.is_silent = False
        """A black hole: bytes are read and dropped, and connections stay open."""
        self.is_held = False
        """A cut network: bytes wait, and are delivered when it is no longer cut."""
        self._listen = listen
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._blackholed: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Start to listen."""
        self._thread.start()
        self._run_in_thread(self._serve())

    def blackhole_open_connections(self) -> None:
        """Drop all further bytes of the open connections; new ones work."""
        self._blackholed |= self._open

    def reset(self) -> None:
        """Abort every connection, with a TCP reset if possible."""
        self._run_in_thread(self._abort_all())

    def stop(self) -> None:
        """Abort every connection and stop listening."""
        self._run_in_thread(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run_in_thread(self, work: Awaitable[object]) -> None:
        async def wait() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(10)

    async def _serve(self) -> None:
        self._server = await _listen(self._listen, self._accept)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        while self._open:
            await self._abort_all()
            await asyncio.sleep(0)

    async def _abort_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await _connect(self._target)
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, upstream[1]}
        self._open |= writers
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, upstream[1]))
                group.create_task(self._forward(upstream[0], writer))
        finally:
            self._open -= writers

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK):
                await asyncio.sleep(self.latency)
                while self.is_held:  # noqa: ASYNC110 - an event of this thread's loop needs more code
                    await asyncio.sleep(HELD_POLL_SECONDS)
                if not self.is_silent and sink not in self._blackholed:
                    sink.write(chunk)
                    await sink.drain()
        sink.close()


async def _listen(
    address: Target,
    accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.Server:
    if isinstance(address, Path):
        return await asyncio.start_unix_server(accept, address)
    return await asyncio.start_server(accept, *address)


async def _connect(address: Target) -> Streams:
    if isinstance(address, Path):
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*address)
