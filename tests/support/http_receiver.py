"""A receiver over a real socket that answers as a test wants, well or badly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ssl import SSLContext

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ReceivedRequest:
    """A request: the method and target, the headers in lower case, and the body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpReceiver:
    """What a receiver has seen."""

    host: str
    port: int = 0
    connections: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    on_request: Callable[[ReceivedRequest], object] | None = None

    def url(self, scheme: str = "http") -> str:
        """Return a URL of the receiver by its address."""
        return f"{scheme}://{self.host}:{self.port}/hook"


def answer_with(response: bytes) -> Answer:
    """Return an answer that writes these bytes."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        await writer.drain()

    return answer


@asynccontextmanager
async def http_receiver(
    answer: Answer | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl: SSLContext | None = None,
    closes: bool = False,
) -> AsyncIterator[HttpReceiver]:
    """Run a receiver; each request gets the answer, and then another one unless it `closes`."""
    respond = answer or answer_with(OK)
    receiver = HttpReceiver(host)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
        receiver.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                request = await read_request(reader)
                receiver.requests.append(request)
                if receiver.on_request:
                    receiver.on_request(request)
                await respond(writer)
                if closes:
                    break
        writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=ssl)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    """Read one request with a `Content-Length`."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rows = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
    return ReceivedRequest(line, headers, await reader.readexactly(int(headers["content-length"])))
