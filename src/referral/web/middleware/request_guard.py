"""What a request has to be before anybody looks at what it asks for: a host, a body in time.

And HEAD, which the framework does not know: it is a GET whose answer has no body.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    Message,
    Receive,
    ReceiveMessage,
    Scope,
    Send,
)

from referral.web.problems import (
    PROBLEM_MEDIA_TYPE,
    ContentTooLarge,
    MalformedBody,
    RequestTimeout,
    problem_details,
)

BODY_TIMEOUT_SECONDS = 10.0
"""How long a body may take from its first byte to its last; 64 KiB need no more anywhere."""

MAX_BODY_BYTES = 64 * 1024
MAX_BODY_CHUNKS = 1_024
"""In how many pieces a body may arrive: sent byte by byte, 64 KiB would cost seconds of CPU time.
Clients send kilobytes at a time; even segments of 64 bytes are few enough.
"""

MAX_PATH_CHARACTERS = 1_024
MAX_QUERY_BYTES = 8_192
MAX_QUERY_PARAMETERS = 100
"""Characters of a path, bytes and parameters of a query. The framework caches 1,024 parsed paths
and queries: as long as a request's head may be, these took 250 and 600 MB.
"""

HOST_NAME = rb"(?=[^:]{1,255}(?::|$))[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
HOST_HEADER_PATTERN = re.compile(rb"(?:%b|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?" % HOST_NAME)
MAX_PORT = 65_535
HTTP_1_0_VERSIONS = ("1", "1.0")
"""HTTP 1.0, which knows no hosts: what granian calls it, and the standard."""

INVALID_HOST = "Send one Host header: a name or an address, and a port where one is needed."
PATH_TOO_LONG = f"A path may have {MAX_PATH_CHARACTERS:,} characters."
QUERY_TOO_LONG = (
    f"A query may have {MAX_QUERY_BYTES:,} bytes and {MAX_QUERY_PARAMETERS} parameters."
)


class RequestGuard:
    """An ASGI app around the framework, which fails on some hosts and waits for bodies for ever."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        """Take the app inside, and the address that problems are described under."""
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
        elif not _has_valid_host(scope["headers"], scope["http_version"]):
            await self._send_problem(scope, send, 400, INVALID_HOST)
        elif len(scope["path"]) > MAX_PATH_CHARACTERS:
            await self._send_problem(scope, send, 414, PATH_TOO_LONG)
        elif _is_query_too_long(scope["query_string"]):
            await self._send_problem(scope, send, 414, QUERY_TOO_LONG)
        else:
            if scope["method"] == "HEAD":
                scope["method"], send = "GET", _without_body(send)
            await self._app(scope, _buffer_body(receive), send)

    async def _send_problem(self, scope: Scope, send: Send, status: int, detail: str) -> None:
        body = msgspec.json.encode(problem_details(scope, self._public_url, status, detail))
        headers = [
            (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _has_valid_host(headers: Iterable[tuple[bytes, bytes]], version: str) -> bool:
    hosts = [value for name, value in headers if name == b"host"]
    if not any(hosts):  # where none was sent granian makes an empty one up
        return version in HTTP_1_0_VERSIONS
    found = HOST_HEADER_PATTERN.fullmatch(hosts[0])
    return len(hosts) == 1 and found is not None and int(found[1] or 0) <= MAX_PORT


def _is_query_too_long(query: bytes) -> bool:
    return len(query) > MAX_QUERY_BYTES or query.count(b"&") >= MAX_QUERY_PARAMETERS


def _without_body(send: Send) -> Send:
    """Pass the head of an answer on, and of its body only that it ends."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return send_head


def _buffer_body(receive: Receive) -> Receive:
    """Give the body in one message, once all of it is there; it is read when it is first asked for.

    The server passes each chunk on as a message of its own, and the framework's work for a message,
    as well as a timer for it, cost as much as some kilobytes do. So there is one timer for all.
    """
    is_read = False

    async def receive_body() -> ReceiveMessage:
        nonlocal is_read
        if is_read:
            return await receive()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                body = await _read_body(receive)
        except TimeoutError:
            raise RequestTimeout from None
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


async def _read_body(receive: Receive) -> bytes:
    """Return the body; one that is too long ends where the framework will notice that it is."""
    body = bytearray()
    for _ in range(MAX_BODY_CHUNKS + 1):  # the last one says that the body ends
        message = cast("HTTPReceiveMessage", await receive())
        if message["type"] == "http.disconnect":
            raise MalformedBody("The body ended before its time, or its chunks are out of shape.")
        body += message["body"]
        if not message["more_body"] or len(body) > MAX_BODY_BYTES:
            return bytes(body)
    raise ContentTooLarge(
        f"The body came in more than {MAX_BODY_CHUNKS:,} chunks. Send larger ones."
    )
