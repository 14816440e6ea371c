"""EmailHunter (hunter.io), or a server with the same API."""

from datetime import timedelta

import msgspec
from msgspec import Struct

from referral.adapters.third_parties.guarded_client import GuardedClient, rate_budget
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import (
    HttpResponse,
    InvalidResponse,
    StillRunning,
)
from referral.core.entities.deliverability import Deliverability
from referral.core.errors import Unavailable
from referral.core.ports.caching import RateLimiter

BUDGET_KEY = "hunter"
CHECK_TIMEOUT_SECONDS = 5.0
OK, UNAUTHORIZED = 200, 401

IN_PROGRESS_STATUS = 202
UNKNOWN_STATUSES = frozenset({222, 400, 422, 451})
"""The mail server failed (222), the address is malformed (400, 422), its data is withheld (451).

These statuses concern one address, not the service.
"""

DELIVERABILITY_BY_STATUS = {member.value: member for member in Deliverability}


class VerifierData(Struct):
    """The result for one address."""

    status: str


class VerifierResponse(Struct):
    """The response of `email-verifier`."""

    data: VerifierData


class Usage(Struct):
    """The used and the available requests of a billing period."""

    used: int
    available: int


class AccountRequests(Struct):
    """The usage by kind of request."""

    verifications: Usage


class AccountData(Struct):
    """The account of the API key."""

    requests: AccountRequests


class AccountResponse(Struct):
    """The response of `account`."""

    data: AccountData


class HunterClient:
    """Sends requests to the API; the key is a query parameter, as the API defines it."""

    def __init__(self, http_client: HttpClient, url: str, api_key: str) -> None:
        """`url` is the root of the API, without the version."""
        self._http_client = http_client
        self._url = url.removesuffix("/v2")
        self._key_query = {"api_key": api_key} if api_key else {}

    async def verify(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Verify an address; raises `InvalidResponse`."""
        return await self._get("email-verifier", timeout_seconds, email=email)

    async def enrich(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Look up the address's owner in Clearbit's format; raises `InvalidResponse`."""
        return await self._get(
            "combined/find", timeout_seconds, email=email, clearbit_format="true"
        )

    async def get_account(self) -> HttpResponse:
        """Return the account of the API key; raises `InvalidResponse`."""
        return await self._get("account", CHECK_TIMEOUT_SECONDS)

    async def _get(self, path: str, timeout_seconds: float, **query: str) -> HttpResponse:
        return await self._http_client.get(
            f"{self._url}/v2/{path}", query | self._key_query, timeout_seconds=timeout_seconds
        )


class HunterVerifier(GuardedClient[Deliverability]):
    """Verifies e-mail addresses with EmailHunter."""

    supports_recheck = True

    def __init__(self, hunter: HunterClient, limits: RateLimiter) -> None:
        """`limits` counts the requests of EmailHunter's rate budget."""
        budget = rate_budget(limits, BUDGET_KEY)
        super().__init__("EmailHunter's verifier", hunter.verify, parse_deliverability, budget)

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:
        """Return the deliverability of an address, or raise `Unavailable`."""
        return await self.request(email, time_limit)


class HunterHealthProbe:
    """Checks whether EmailHunter accepts the key, and the remaining quota."""

    name = "EmailHunter"

    def __init__(self, hunter: HunterClient) -> None:
        """`hunter` has the key to check."""
        self._hunter = hunter

    async def check(self) -> str:
        """Return "ok" with the quota, or raise `Unavailable`; this request costs nothing."""
        try:
            response = await self._hunter.get_account()
            if response.status == UNAUTHORIZED:
                raise Unavailable("refuses the key")
            if response.status != OK:
                raise Unavailable(f"returned status {response.status}")
            account = msgspec.convert(response.content, AccountResponse).data
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        except msgspec.ValidationError:
            return "ok, quota unknown"
        usage = account.requests.verifications
        return f"ok, {usage.available - usage.used} of {usage.available} verifications left"


def parse_deliverability(response: HttpResponse) -> Deliverability:
    """Parse a verifier response; raises `StillRunning` or `InvalidResponse`."""
    if response.status == IN_PROGRESS_STATUS:
        raise StillRunning
    if response.status in UNKNOWN_STATUSES:
        return Deliverability.UNKNOWN
    if response.status != OK:
        raise InvalidResponse(f"status {response.status}")
    try:
        status = msgspec.convert(response.content, VerifierResponse).data.status
    except msgspec.ValidationError:
        status = None
    if status is None:
        raise InvalidResponse("response of an unknown format")
    return DELIVERABILITY_BY_STATUS.get(status, Deliverability.UNKNOWN)
