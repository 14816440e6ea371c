"""What a request has to be before anybody looks at what it asks for: a host, a body in time.

And HEAD, which the framework does not know: it is a GET whose answer has no body.
"""

import asyncio
import re
from collections.abc import Iterable

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, ReceiveMessage, Scope, Send

from referral.web.problems import MEDIA_TYPE, Malformed, RequestTimeout, problem

BODY_SECONDS = 10.0
"""How long a body may take from its first byte to its last; 64 KiB need no more anywhere."""

NAME = rb"(?=[^:]{1,255}(?::|$))[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?"
HOST = re.compile(rb"(?:%b|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?" % NAME)
MAX_PORT = 65_535
OLD = ("1", "1.0")
"""HTTP 1.0, which knows no hosts: what granian calls it, and the standard."""


class Wire:
    """An ASGI app around the framework, which fails on some hosts and waits for bodies for ever."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        """Take the app inside, and the address that problems are described under."""
        self._app = app
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
        elif _has_good_host(scope["headers"], scope["http_version"]):
            if scope["method"] == "HEAD":
                scope["method"], send = "GET", _without_body(send)
            await self._app(scope, _in_time(receive), send)
        else:
            await self._refuse(scope, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        detail = "Send one Host header: a name or an address, and a port where one is needed."
        body = msgspec.json.encode(problem(scope, self._public_url, 400, detail))
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _has_good_host(headers: Iterable[tuple[bytes, bytes]], version: str) -> bool:
    hosts = [value for name, value in headers if name == b"host"]
    if not any(hosts):  # where none was sent granian makes an empty one up
        return version in OLD
    found = HOST.fullmatch(hosts[0])
    return len(hosts) == 1 and found is not None and int(found[1] or 0) <= MAX_PORT


def _without_body(send: Send) -> Send:
    """Pass the head of an answer on, and of its body only that it ends."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message["body"] = b""
        await send(message)

    return send_head


def _in_time(receive: Receive) -> Receive:
    """Let the body be read for so long, and say whose fault it is when it does not come."""
    deadline: float | None = None
    is_over = False

    async def receive_in_time() -> ReceiveMessage:
        nonlocal deadline, is_over
        if is_over:
            return await receive()
        deadline = deadline or asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout from None
        if message["type"] == "http.disconnect":
            raise Malformed("The body ended before its time, or its chunks are out of shape.")
        is_over = not message.get("more_body", False)
        return message

    return receive_in_time
