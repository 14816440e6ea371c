"""Cross-origin requests (CORS)."""

from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

EXPOSED_HEADERS = ["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"]
"""The response headers that scripts may read in addition to the CORS-safelisted ones."""


SENT_ORIGIN_KEY = "sent_origin"
"""The key of the request state under which the filter keeps the header that it may remove."""


class OriginFilter:
    """Removes `Origin` headers with origins that are not allowed.

    Litestar answers preflight requests of such origins in plain text and lists what is allowed.
    Without the header, their requests are handled like any other.
    """

    def __init__(self, app: ASGIApp, cors: CORSConfig) -> None:
        """Wrap the app; `cors` has the allowed origins."""
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == ScopeType.HTTP:
            sent = [value for name, value in scope["headers"] if name == b"origin"]
            scope["state"][SENT_ORIGIN_KEY] = sent[0].decode("latin-1") if sent else None
            if not all(self._cors.is_origin_allowed(origin.decode("latin-1")) for origin in sent):
                scope["headers"] = [header for header in scope["headers"] if header[0] != b"origin"]
        await self._app(scope, receive, send)


def sent_origin(scope: Scope) -> str | None:
    """Return the `Origin` that the client sent, also one that is not allowed."""
    found = (value for name, value in scope["headers"] if name == b"origin")
    header = next(found, b"").decode("latin-1") or None
    sent: str | None = scope["state"].get(SENT_ORIGIN_KEY, header)
    return sent


def make_cors_config(origins: tuple[str, ...]) -> CORSConfig | None:
    """Return the configuration that allows these origins, or None without any."""
    return CORSConfig(list(origins), expose_headers=EXPOSED_HEADERS) if origins else None
