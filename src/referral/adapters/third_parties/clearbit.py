"""Clearbit, which issues no new keys, or a server with the same API."""

from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import (
    HttpResponse,
    InvalidResponse,
)
from referral.core.errors import Unavailable

CHECK_TIMEOUT_SECONDS = 5.0
KEY_REFUSED_STATUSES = frozenset({401, 402, 403})
MIN_SERVER_ERROR_STATUS = 500


class ClearbitClient:
    """Sends requests to the API; the key is a bearer token."""

    def __init__(self, http_client: HttpClient, url: str, api_key: str) -> None:
        """`url` is the root of the API, without the version."""
        self._http_client = http_client
        self._url = f"{url.removesuffix('/v2')}/v2/combined/find"
        self._api_key = api_key

    async def enrich(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Look up the address's owner; raises `InvalidResponse`."""
        return await self._get(timeout_seconds, email=email)

    async def check_key(self) -> HttpResponse:
        """Send a request without an address, which costs nothing; raises `InvalidResponse`."""
        return await self._get(CHECK_TIMEOUT_SECONDS)

    async def _get(self, timeout_seconds: float, **query: str) -> HttpResponse:
        return await self._http_client.get(
            self._url, query, timeout_seconds=timeout_seconds, bearer_token=self._api_key
        )


class ClearbitHealthProbe:
    """Checks whether Clearbit accepts the key."""

    name = "Clearbit"

    def __init__(self, clearbit: ClearbitClient) -> None:
        """`clearbit` has the key to check."""
        self._clearbit = clearbit

    async def check(self) -> str:
        """Return "ok", or raise `Unavailable` with the cause."""
        try:
            response = await self._clearbit.check_key()
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        if response.status in KEY_REFUSED_STATUSES:
            raise Unavailable("refuses the key")
        if response.status >= MIN_SERVER_ERROR_STATUS:
            raise Unavailable(f"returned status {response.status}")
        return "ok"
