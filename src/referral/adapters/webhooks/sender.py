"""HTTP requests to receivers of webhooks, which may be dead, slow, endless or hostile."""

import asyncio
from contextlib import suppress
from ipaddress import IPv6Address
from ssl import SSLContext
from typing import Any

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp import ConnectionTimeoutError as ConnectTimeoutError
from aiohttp.client_exceptions import ClientConnectorError
from yarl import URL

from referral.adapters.webhooks.bounded_response import BoundedResponse, StaleConnection
from referral.adapters.webhooks.failures import SendingFailed, describe_failure, response_error
from referral.adapters.webhooks.host_resolver import HostResolver
from referral.adapters.webhooks.networks import IpAddress, WebhookNetworks
from referral.adapters.webhooks.retry_after import parse_retry_after
from referral.adapters.webhooks.urls import WebhookUrl, parse_webhook_url
from referral.core.ports.system import Clock
from referral.core.ports.webhooks import ReceiverResponse, WebhookRequest

ATTEMPT_TIMEOUT_SECONDS = 15.0
"""Time limit of an attempt: DNS, connection, TLS, request, and the response's headers."""

BODY_TIMEOUT_SECONDS = 1.0
"""Time limit of the response's body, within that of the attempt."""

SHORT_CONNECT_TIMEOUT = ClientTimeout(total=None, sock_connect=4.0)
"""Time limit of a connection, if the host has another address."""

MAX_ADDRESSES = 4
"""Addresses of a host that an attempt tries."""

MAX_REQUESTS = 128
"""Requests that a process sends at once, to all receivers together."""

KEEPALIVE_SECONDS = 1.0
"""Time that an idle connection stays open: shorter than servers keep theirs open."""

MAX_BODY_BYTES = 64 * 1024
KEPT_BODY_BYTES = 1024
READ_BUFFER_BYTES = 16 * 1024

REQUEST_HEADERS = {
    "Accept": "*/*",
    # No compression: a small body could decompress to a huge one. It is not decompressed anyway.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "referral-webhooks",
}


class HttpWebhookSender:
    """Sends requests over one connection pool, to addresses that it has checked.

    The host is resolved for each attempt, and the connection is made to an IP address: the name is
    not resolved a second time. An open connection is reused only for an address to which the
    attempt has resolved the host again.
    """

    def __init__(
        self,
        networks: WebhookNetworks,
        resolver: HostResolver,
        clock: Clock,
        *,
        ssl_context: SSLContext | None = None,
        timeout_seconds: float = ATTEMPT_TIMEOUT_SECONDS,
    ) -> None:
        """Needs a running event loop; `ssl_context` replaces the system's certificates."""
        self._networks, self._resolver, self._clock = networks, resolver, clock
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(MAX_REQUESTS)
        self._session = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(
                limit=MAX_REQUESTS, keepalive_timeout=KEEPALIVE_SECONDS, ssl=ssl_context or True
            ),
            cookie_jar=DummyCookieJar(),
            headers=REQUEST_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
            response_class=BoundedResponse,
            timeout=ClientTimeout(total=None),
        )

    async def send(self, request: WebhookRequest) -> ReceiverResponse:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    target = parse_webhook_url(request.url)
                    addresses = await self._find_addresses(target)
                    response = await self._post(target, addresses, request)
            except (SendingFailed, ClientError, OSError, TimeoutError, ValueError) as error:
                return ReceiverResponse(error=describe_failure(error))
            async with response:
                return await self._evaluate(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _find_addresses(self, target: WebhookUrl) -> list[IpAddress]:
        """Resolve the host, and return the addresses that are allowed."""
        resolved = [target.address] if target.address else await self._resolve(target.host)
        allowed = [address for address in resolved if self._networks.allows(address)]
        if not allowed:
            raise SendingFailed("the host has no address in an allowed network")
        if target.scheme == "http":
            allowed = [address for address in allowed if self._networks.is_in_allowlist(address)]
        if not allowed:
            raise SendingFailed("http:// works only in networks that the operator allows")
        return allowed[:MAX_ADDRESSES]

    async def _resolve(self, host: str) -> list[IpAddress]:
        try:
            return await self._resolver.resolve(host)
        except TimeoutError:
            raise SendingFailed("the host name was not resolved in time") from None
        except OSError:
            raise SendingFailed("the host name was not found") from None

    async def _post(
        self, target: WebhookUrl, addresses: list[IpAddress], request: WebhookRequest
    ) -> ClientResponse:
        """Send the request to the first address that accepts a connection."""
        options: dict[str, Any] = {
            "allow_redirects": False,
            "data": request.body,
            "headers": {**request.headers, "Host": target.authority},
            "server_hostname": None if target.address else target.host.rstrip("."),
        }
        *others, last = (_url_of(target, address) for address in addresses)
        for url in others:
            with suppress(ClientConnectorError, ConnectTimeoutError):
                return await self._post_to(url, options | {"timeout": SHORT_CONNECT_TIMEOUT})
        return await self._post_to(last, options)

    async def _post_to(self, url: URL, options: dict[str, Any]) -> ClientResponse:
        try:
            return await self._session.post(url, **options)
        except StaleConnection:
            return await self._session.post(url, **options)

    async def _evaluate(self, response: ClientResponse) -> ReceiverResponse:
        status, error = response.status, response_error(response.status)
        body = await _read_beginning(response)
        retry_after = parse_retry_after(
            status, response.headers.get("Retry-After"), self._clock.now()
        )
        return ReceiverResponse(status, error, body if error else None, retry_after)


def _url_of(target: WebhookUrl, address: IpAddress) -> URL:
    host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
    return URL(f"{target.scheme}://{host}:{target.port}{target.target}", encoded=True)


async def _read_beginning(response: ClientResponse) -> str:
    """Read the body, so that the connection can be reused, and return its beginning.

    The connection of a body that is large, slow or broken is closed.
    """
    if response.content.is_eof():  # it has come with the headers, as small bodies do
        return response.content.read_nowait(KEPT_BODY_BYTES).decode(errors="replace")
    kept, size = bytearray(), 0
    with suppress(ClientError, OSError, TimeoutError):
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in response.content.iter_any():
                kept += chunk[: KEPT_BODY_BYTES - len(kept)]
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    break
    return kept.decode(errors="replace")
