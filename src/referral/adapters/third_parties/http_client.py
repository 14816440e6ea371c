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

from referral.adapters.third_parties.http_response import InvalidResponse, Reply

CONNECT_SECONDS = 1.0
CONNECTIONS = 50
MAX_BYTES = 256 * 1024
HEADERS = {
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
            connector=TCPConnector(limit=CONNECTIONS),
            cookie_jar=DummyCookieJar(),
            headers=HEADERS,
        )

    async def get(
        self,
        url: str,
        query: Mapping[str, str],
        *,
        within: float,
        bearer: str | None = None,
    ) -> Reply:
        """Ask, or raise `InvalidResponse`; a redirect is an answer and is not followed."""
        timeout = ClientTimeout(
            total=within, sock_connect=min(within, CONNECT_SECONDS), sock_read=within
        )
        address = URL(f"{url}?{urlencode(query)}", encoded=True)
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        try:
            async with self._session.get(
                address, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return Reply(response.status, _decode(await _read(response)))
        except (ClientError, OSError, TimeoutError, ValueError) as error:
            fault = type(error).__name__
        # Outside of the handler, since the error and what led to it may show the address.
        raise InvalidResponse(fault)

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()


async def _read(response: ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("is packed")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_BYTES:
            raise ValueError("is too large")
    return bytes(body)


def _decode(body: bytes) -> object:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found
