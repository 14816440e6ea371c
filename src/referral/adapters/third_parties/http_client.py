"""Asking other servers over HTTP, with limits on the time and the size of an answer."""

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
from yarl import URL

from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse

CONNECT_TIMEOUT_SECONDS = 1.0
MAX_CONNECTIONS = 50
MAX_RESPONSE_BYTES = 256 * 1024
REQUEST_HEADERS = {
    "Accept": "application/json",
    # Nothing is unpacked here, so that nothing small becomes huge.
    "Accept-Encoding": "identity",
    "User-Agent": "referral",
}


class HttpClient:
    """One pool of connections for all whom we ask."""

    def __init__(self) -> None:
        """Take nothing; needs a running event loop."""
        self._session = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(limit=MAX_CONNECTIONS),
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
        """Ask, or raise `InvalidResponse`; a redirect is an answer and is not followed."""
        timeout = ClientTimeout(
            total=timeout_seconds,
            sock_connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS),
            sock_read=timeout_seconds,
        )
        request_url = URL(f"{url}?{urlencode(query)}", encoded=True)
        headers = {"Authorization": f"Bearer {bearer_token}"} if bearer_token else {}
        try:
            async with self._session.get(
                request_url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return HttpResponse(response.status, _parse_json(await _read_body(response)))
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            failure = type(error).__name__
        # Outside of the handler, since the error and what led to it may show the address.
        raise InvalidResponse(failure)

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()


async def _read_body(response: ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("is packed")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise ValueError("is too large")
    return bytes(body)


def _parse_json(body: bytes) -> object:
    try:
        content: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content
