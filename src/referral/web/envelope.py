"""What every answer has around it: a request id, safe headers, a line in the log."""

import re
import time
from uuid import uuid4

import structlog
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,64}")

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""OWASP REST Security Cheat Sheet; a page that loads something sets its own policy."""

HSTS = "max-age=31536000"


class Envelope:
    """An ASGI app around the whole service, so that the framework's own errors are in it too."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        """Take the app inside, and whether its public address is behind TLS."""
        self._app = app
        self._safe = SAFE | ({"Strict-Transport-Security": HSTS} if https else {})
        self._log = structlog.get_logger()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        # A copy: a server may hand the same dictionary to every request.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        began, status = time.perf_counter(), 0

        async def send_wrapped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableScopeHeaders.from_message(message)
                headers["X-Request-ID"] = request_id
                for name, value in scope["state"].get("limit_headers", ()):
                    headers[name] = value
                for name, value in self._safe.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, send_wrapped)
            self._log.info(
                "request",
                method=scope["method"],
                route=scope.get("path_template", ""),
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 2),
            )


def _request_id(scope: Scope) -> str:
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) == 1 and REQUEST_ID.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return str(uuid4())
