"""The request id, security headers, metrics and access log of every request."""

import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar

from litestar.enums import ScopeType
from litestar.status_codes import HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import STRUCTLOG_KEY_PREFIX
from uuid_utils import uuid4

from referral.web.middleware.access_log import AccessLog
from referral.web.middleware.draining import Drain

REQUEST_ID_PATTERN = re.compile(rb"[\x21-\x7e]{1,64}")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""Defaults by the OWASP REST Security Cheat Sheet. HTML pages override the content security policy,
public documents the cache control.
"""

KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""A client may send any word as method; all others are logged and counted as `OTHER`."""

UNKNOWN_ROUTE = "unknown"
"""The label of requests whose path matches no route."""

EMPTY_BODY = (b"content-length", b"0")
"""A response with this header has no Content-Type, which Litestar always adds."""

HSTS_HEADER = "max-age=31536000"

# The variable that structlog's bind_contextvars would set, without its cost for each request.
_request_id_variable: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id")


Header = tuple[bytes, bytes]
CountRequest = Callable[[str, str, int, float], None]
"""Counts a request by method, route, status and seconds."""


class RequestContextMiddleware:
    """The outermost middleware, so that it covers the framework's own errors as well."""

    def __init__(
        self, app: ASGIApp, count_request: CountRequest, drain: Drain, *, https: bool
    ) -> None:
        """Wrap the app; `https` adds HSTS, a begun `drain` adds `Connection: close`."""
        headers = SECURITY_HEADERS | ({"Strict-Transport-Security": HSTS_HEADER} if https else {})
        self._app = app
        self._count_request = count_request
        self._drain = drain
        self._security_headers = [
            (name.lower().encode(), value.encode()) for name, value in headers.items()
        ]
        self._access_log = AccessLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            self._access_log.flush()
            return
        request_id = _request_id(scope)
        # A copy: the server may pass the same dictionary to every request.
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "OTHER"
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._complete_headers(message["headers"], scope)
            await send(message)

        token = _request_id_variable.set(request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            status = status or HTTP_500_INTERNAL_SERVER_ERROR
            raise
        finally:
            _request_id_variable.reset(token)
            seconds = time.perf_counter() - started
            route = scope.get("path_template") or UNKNOWN_ROUTE
            self._count_request(method, route, status, seconds)
            self._access_log.add(method, route, status, seconds, request_id)

    def _complete_headers(self, sent: Iterable[Header], scope: Scope) -> list[Header]:
        headers, state = list(sent), scope["state"]
        if EMPTY_BODY in headers:
            headers = [header for header in headers if header[0] != b"content-type"]
        names = {name for name, _ in headers}
        headers += [header for header in self._security_headers if header[0] not in names]
        headers += state.get("limit_headers", ())
        headers.append((b"x-request-id", state["request_id"].encode()))
        if self._drain.has_begun and scope["http_version"].startswith("1"):
            headers.append((b"connection", b"close"))
        return headers


def _request_id(scope: Scope) -> str:
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) == 1 and REQUEST_ID_PATTERN.fullmatch(sent[0]):
        return sent[0].decode("ascii")
    return str(uuid4())
