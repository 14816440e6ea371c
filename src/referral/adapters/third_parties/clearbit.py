"""Clearbit, for those who still have a key, or a server with the same API."""

from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.errors import Unavailable

CHECK_TIMEOUT_SECONDS = 5.0
KEY_REFUSED_STATUSES = frozenset({401, 402, 403})
MIN_SERVER_ERROR_STATUS = 500


class ClearbitClient:
    """The server and the key, which goes along as a bearer token."""

    def __init__(self, http_client: HttpClient, url: str, api_key: str) -> None:
        """Take where the API is, without its version."""
        self._http_client = http_client
        self._url = f"{url.removesuffix('/v2')}/v2/combined/find"
        self._api_key = api_key

    async def enrich(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Ask what is known of the owner, or raise `InvalidResponse`."""
        return await self._get(timeout_seconds, email=email)

    async def check_key(self) -> HttpResponse:
        """Send a query without an address: it costs nothing. Raises `InvalidResponse`."""
        return await self._get(CHECK_TIMEOUT_SECONDS)

    async def _get(self, timeout_seconds: float, **query: str) -> HttpResponse:
        return await self._http_client.get(
            self._url, query, timeout_seconds=timeout_seconds, bearer_token=self._api_key
        )


class ClearbitHealthProbe:
    """The port `Part`: whether the key works."""

    name = "Clearbit"

    def __init__(self, clearbit: ClearbitClient) -> None:
        """Take the server."""
        self._clearbit = clearbit

    async def check(self) -> str:
        """See the port."""
        try:
            response = await self._clearbit.check_key()
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        if response.status in KEY_REFUSED_STATUSES:
            raise Unavailable("refuses the key")
        if response.status >= MIN_SERVER_ERROR_STATUS:
            raise Unavailable(f"answers with status {response.status}")
        return "ok"
