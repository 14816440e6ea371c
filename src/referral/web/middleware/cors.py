"""Requests of browsers from other pages (CORS)."""

from litestar.config.cors import CORSConfig
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

EXPOSED_HEADERS = ["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"]
"""What a page may read of an answer, beside what any may."""


class OriginFilter:
    """An ASGI app before the framework, which tells pages that are not listed in plain text what
    they may not, and what they might: from here on their requests are like anybody's.
    """

    def __init__(self, app: ASGIApp, cors: CORSConfig) -> None:
        """Take the app inside, and which pages are listed."""
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == ScopeType.HTTP:
            sent = [value for name, value in scope["headers"] if name == b"origin"]
            if sent and not all(
                self._cors.is_origin_allowed(one.decode("latin-1")) for one in sent
            ):
                scope["headers"] = [one for one in scope["headers"] if one[0] != b"origin"]
        await self._app(scope, receive, send)


def make_cors_config(origins: tuple[str, ...]) -> CORSConfig | None:
    """Let pages of these origins in, if any."""
    return CORSConfig(list(origins), expose_headers=EXPOSED_HEADERS) if origins else None
