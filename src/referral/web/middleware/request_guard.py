"""Checks of host, path, query and body before routing, and HEAD requests.

Litestar does not route HEAD: the guard turns it into GET and removes the body of the response. The
member `is_head` of the request state tells it to responses whose body is expensive.
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

from referral.core.errors import NotFound
from referral.web.external_ids import keep_external_id_encoded
from referral.web.problems import (
    PROBLEM_MEDIA_TYPE,
    ContentTooLarge,
    MalformedBody,
    RequestTimeout,
    problem_details,
)

BODY_TIMEOUT_SECONDS = 10.0
"""How long a client may take to send a body; even slow connections send 64 KiB faster."""

MAX_BODY_BYTES = 64 * 1024
MAX_BODY_CHUNKS = 1_024
"""A body of 64 KiB sent byte by byte would cost seconds of CPU time. Clients send chunks of
kilobytes; even chunks of 64 bytes stay within this limit.
"""

MAX_PATH_CHARACTERS = 1_024
MAX_QUERY_BYTES = 8_192
MAX_QUERY_PARAMETERS = 100
"""Litestar caches 1,024 parsed paths and queries. At the maximum size of a request's head, these
caches took 250 and 600 MB.
"""

HOST_NAME = rb"(?=[^:]{1,255}(?::|$))[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
HOST_HEADER_PATTERN = re.compile(rb"(?:%b|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?" % HOST_NAME)
MAX_PORT = 65_535
HTTP_1_0_VERSIONS = ("1", "1.0")
"""HTTP/1.0 needs no Host header. Granian reports the version as `1`, the ASGI standard as `1.0`."""

INVALID_HOST = "Send one Host header: a name or an IP address, and a port if needed."
PATH_TOO_LONG = f"Send a path of at most {MAX_PATH_CHARACTERS:,} characters."
QUERY_TOO_LONG = (
    f"Send a query of at most {MAX_QUERY_BYTES:,} bytes and {MAX_QUERY_PARAMETERS} parameters."
)


class RequestGuard:
    """Rejects invalid hosts, long paths and queries, and stalled bodies, which Litestar accepts."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        """Wrap the app; problem types are URLs below `public_url`."""
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
        elif not _has_valid_host(scope["headers"], scope["http_version"]):
            await self._send_problem(scope, send, 400, INVALID_HOST)
        elif len(scope["path"]) > MAX_PATH_CHARACTERS:
            await self._send_problem(scope, send, 414, PATH_TOO_LONG)
        elif _is_query_too_long(scope["query_string"]):
            await self._send_problem(scope, send, 414, QUERY_TOO_LONG)
        elif not keep_external_id_encoded(scope):
            await self._send_problem(scope, send, 404, NotFound.default_detail)
        else:
            if scope["method"] == "HEAD":
                scope["method"], send = "GET", _without_body(send)
                scope["state"]["is_head"] = True
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
    if not any(hosts):  # without a Host header granian passes an empty one
        return version in HTTP_1_0_VERSIONS
    match = HOST_HEADER_PATTERN.fullmatch(hosts[0])
    return len(hosts) == 1 and match is not None and int(match[1] or 0) <= MAX_PORT


def _is_query_too_long(query: bytes) -> bool:
    return len(query) > MAX_QUERY_BYTES or query.count(b"&") >= MAX_QUERY_PARAMETERS


def _without_body(send: Send) -> Send:
    """Remove the body of a response, and keep its headers."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return send_head


def _buffer_body(receive: Receive) -> Receive:
    """Receive the whole body at the first call, with one timeout, and return it as one message.

    The server sends a message per chunk. What Litestar does for a message, and a timer for each,
    cost as much CPU time as some kilobytes of body.
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
    """Return the body. Reading stops once it exceeds the limit; Litestar then responds with 413."""
    body = bytearray()
    for _ in range(MAX_BODY_CHUNKS + 1):  # the last message may be empty and end the body
        message = cast("HTTPReceiveMessage", await receive())
        if message["type"] == "http.disconnect":
            raise MalformedBody("The body ended early or its chunked encoding is invalid.")
        body += message["body"]
        if not message["more_body"] or len(body) > MAX_BODY_BYTES:
            return bytes(body)
    raise ContentTooLarge(f"The body has more than {MAX_BODY_CHUNKS:,} chunks. Send larger chunks.")
