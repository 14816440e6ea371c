"""Responses of any length, sent as they are made."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import timedelta
from typing import Any

import structlog
from litestar.exceptions import HTTPException
from litestar.response.base import ASGIResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Scope, Send

from referral.core.errors import TooManyRequests
from referral.web.middleware.request_guard import HTTP_1_0_VERSIONS
from referral.web.problems import NewerHttpRequired

STALL_SECONDS = 60.0
"""How long a client may take to accept some hundred kilobytes."""

MAX_STREAMS_PER_CALLER = 2
CONCURRENT_READS = 2
"""How many streams of a process read at once, from a pool of ten connections."""

RETRY_AFTER = timedelta(seconds=10)


class StreamLimits:
    """Limits of the streams of this process. One that waits for its client holds up no other."""

    def __init__(self) -> None:
        """Start without streams."""
        self.reading = asyncio.Semaphore(CONCURRENT_READS)
        self._streams = Counter[str]()

    @contextmanager
    def stream(self, caller: str) -> Iterator[None]:
        """Count a stream of a caller for the block; raises `TooManyRequests`."""
        if self._streams[caller] >= MAX_STREAMS_PER_CALLER:
            detail = f"{MAX_STREAMS_PER_CALLER} downloads are running. Wait until one has ended."
            raise TooManyRequests(detail, retry_after=RETRY_AFTER)
        self._streams[caller] += 1
        try:
            yield
        finally:
            self._streams[caller] -= 1
            self._streams += Counter()  # forget callers without streams


class StreamedResponse(ASGIResponse):
    """Sends the chunks of a generator. The first chunk may raise an error of the core.

    If a later one fails, or the client stops reading, the end of the body is not sent, and the
    server closes the connection: HTTP/1.1 clients do not take what they have for the whole body.
    HTTP/1.0 has no end but the connection's, so it is refused. HEAD does not start the generator.
    """

    __slots__ = ("_chunks",)
    _should_set_content_length = False

    def __init__(self, chunks: AsyncGenerator[bytes, None], **options: Any) -> None:  # noqa: ANN401 - Litestar's
        """Take the chunks, and the options of Litestar's response."""
        super().__init__(**options)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        if scope["http_version"] in HTTP_1_0_VERSIONS:
            raise NewerHttpRequired
        if scope["state"].get("is_head"):
            await self.start_response(send)
            await send(_body(b"", more=False))
            return
        async with aclosing(self._chunks):
            first = await anext(self._chunks)
            await self.start_response(send)
            try:
                await self._send_chunks(first, send, receive)
            except Exception as error:  # noqa: BLE001 - whatever it is, the response has begun
                structlog.get_logger().warning("response not completed", cause=repr(error))

    async def _send_chunks(self, first: bytes, send: Send, receive: Receive) -> None:
        disconnection = asyncio.ensure_future(_wait_for_disconnection(receive))
        try:
            chunk: bytes | None = first
            while chunk is not None and not disconnection.done():
                async with asyncio.timeout(STALL_SECONDS):
                    await send(_body(chunk, more=True))
                chunk = await anext(self._chunks, None)
            await send(_body(b"", more=False))
        finally:
            disconnection.cancel()


async def _wait_for_disconnection(receive: Receive) -> None:
    with suppress(HTTPException):  # of the request guard, for a body that ended early
        while (await receive())["type"] != "http.disconnect":
            pass


def _body(content: bytes, *, more: bool) -> HTTPResponseBodyEvent:
    return {"type": "http.response.body", "body": content, "more_body": more}
