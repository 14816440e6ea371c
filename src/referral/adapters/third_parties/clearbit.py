"""Clearbit, for those who still have a key, or a server with the same API."""

from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import InvalidResponse, Reply
from referral.core.errors import Unavailable

CHECK_SECONDS = 5.0
REFUSALS = frozenset({401, 402, 403})
SERVER_ERRORS = 500


class Clearbit:
    """The server and the key, which goes along as a bearer token."""

    def __init__(self, http: HttpClient, url: str, key: str) -> None:
        """Take where the API is, without its version."""
        self._http = http
        self._url = f"{url.removesuffix('/v2')}/v2/combined/find"
        self._key = key

    async def enrich(self, mailbox: str, within: float) -> Reply:
        """Ask what is known of the owner, or raise `InvalidResponse`."""
        return await self._get(within, email=mailbox)

    async def about_nobody(self) -> Reply:
        """Send a query without an address: it costs nothing. Raises `InvalidResponse`."""
        return await self._get(CHECK_SECONDS)

    async def _get(self, within: float, **query: str) -> Reply:
        return await self._http.get(self._url, query, within=within, bearer=self._key)


class ClearbitPart:
    """The port `Part`: whether the key works."""

    name = "Clearbit"

    def __init__(self, clearbit: Clearbit) -> None:
        """Take the server."""
        self._clearbit = clearbit

    async def check(self) -> str:
        """See the port."""
        try:
            reply = await self._clearbit.about_nobody()
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        if reply.status in REFUSALS:
            raise Unavailable("refuses the key")
        if reply.status >= SERVER_ERRORS:
            raise Unavailable(f"answers with status {reply.status}")
        return "ok"
