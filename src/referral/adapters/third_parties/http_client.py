"""The HTTP client for third parties, with limits on the time and the size of a response."""

import json
from collections.abc import Mapping
from urllib.parse import urlencode

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from referral.adapters.third_parties.http_response import (
    HttpResponse,
    InvalidResponse,
)

CONNECT_TIMEOUT_SECONDS = 1.0
MAX_CONNECTIONS = 50
MAX_RESPONSE_BYTES = 256 * 1024
REQUEST_HEADERS = {
    "Accept": "application/json",
    # No compression: a small body could decompress to a huge one.
    "Accept-Encoding": "identity",
    "User-Agent": "referral",
}


class HttpClient:
    """Sends GET requests over one connection pool."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        """Needs a running event loop; `resolver` replaces the system's."""
        self._session = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(limit=MAX_CONNECTIONS, resolver=resolver),
            cookie_jar=DummyCookieJar(),
            headers=REQUEST_HEADERS,
        )

    async def get(
        self,
        url: str,
        query: Mapping[str, str],
        *,
        timeout_seconds: float,
        bearer_token: str | None = None,
    ) -> HttpResponse:
        """Return the response, or raise `InvalidResponse`; redirects are not followed."""
        timeout = ClientTimeout(
            total=timeout_seconds,
            sock_connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS),
            sock_read=timeout_seconds,
        )
        request_url = URL(f"{url}?{urlencode(query)}" if query else url, encoded=True)
        headers = {"Authorization": f"Bearer {bearer_token}"} if bearer_token else {}
        try:
            async with self._session.get(
                request_url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return HttpResponse(response.status, _parse_json(await _read_body(response)))
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            failure = type(error).__name__
        # Raised outside the handler: `error` and its context may contain the e-mail address.
        raise InvalidResponse(failure)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _read_body(response: ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("the body is compressed")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError("the body is too large")
    return bytes(body)


def _parse_json(body: bytes) -> object:
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content
