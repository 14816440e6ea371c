"""EmailHunter (hunter.io), or a server with the same API."""

from collections.abc import Iterator
from datetime import timedelta

import msgspec
from msgspec import Struct

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.guarded_client import GuardedClient, rate_budget
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.entities.deliverability import Deliverability
from referral.core.errors import Unavailable
from referral.core.ports.caching import RateLimiter

BUDGET_KEY = "hunter"
CHECK_TIMEOUT_SECONDS = 5.0
OK, UNAUTHORIZED = 200, 401

IN_PROGRESS_STATUS = 202
UNKNOWN_STATUSES = frozenset({222, 400, 422, 451})
"""Failed at the remote server, not acceptable, and not to be told: these are about one address, and
not about the service.
"""

DELIVERABILITY_BY_STATUS = {verdict.value: verdict for verdict in Deliverability}


class VerifierData(Struct):
    """What is said of an address."""

    status: str


class VerifierResponse(Struct):
    """The answer of the verifier."""

    data: VerifierData


class Usage(Struct):
    """What was used of what there is."""

    used: int
    available: int


class HunterQuota(Struct):
    """The answer about the key's own account."""

    verifications: Usage

    @classmethod
    def parse(cls, content: object) -> "HunterQuota":
        """Read it; raises `ValidationError`."""
        tree = msgspec.convert(content, dict[str, dict[str, object]])
        return msgspec.convert(tree.get("data", {}).get("requests"), cls)


class HunterClient:
    """The server and the key, which goes along as the API has it, in the query."""

    def __init__(self, http_client: HttpClient, url: str, api_key: str) -> None:
        """Take where the API is, without its version."""
        self._http_client = http_client
        self._url = url.removesuffix("/v2")
        self._key_query = {"api_key": api_key} if api_key else {}

    async def verify(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Ask whether mail arrives, or raise `InvalidResponse`."""
        return await self._get("email-verifier", timeout_seconds, email=email)

    async def enrich(self, email: str, timeout_seconds: float) -> HttpResponse:
        """Ask what is known of the owner, in Clearbit's form, or raise `InvalidResponse`."""
        return await self._get(
            "combined/find", timeout_seconds, email=email, clearbit_format="true"
        )

    async def get_account(self) -> HttpResponse:
        """Ask about the key's own account, or raise `InvalidResponse`."""
        return await self._get("account", CHECK_TIMEOUT_SECONDS)

    async def _get(self, path: str, timeout_seconds: float, **query: str) -> HttpResponse:
        return await self._http_client.get(
            f"{self._url}/v2/{path}", query | self._key_query, timeout_seconds=timeout_seconds
        )


class HunterVerifier:
    """See the port `EmailVerifier`."""

    supports_recheck = True

    def __init__(self, hunter: HunterClient, limits: RateLimiter) -> None:
        """Take the server, and what keeps count of its budget."""
        self._client = GuardedClient(
            "EmailHunter's verifier",
            hunter.verify,
            parse_deliverability,
            rate_budget(limits, BUDGET_KEY),
        )

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:
        """See the port."""
        deliverability = await self._client.request(email, time_limit)
        if deliverability is None:
            raise Unavailable("EmailHunter is still verifying")
        return deliverability

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._client.samples()

    async def close(self) -> None:
        """Give up what nobody waits for."""
        await self._client.close()


class HunterHealthProbe:
    """The port `Part`: whether the key works, and what is left of the quota."""

    name = "EmailHunter"

    def __init__(self, hunter: HunterClient) -> None:
        """Take the server."""
        self._hunter = hunter

    async def check(self) -> str:
        """See the port. This question costs nothing."""
        try:
            response = await self._hunter.get_account()
            if response.status == UNAUTHORIZED:
                raise Unavailable("refuses the key")
            if response.status != OK:
                raise Unavailable(f"answers with status {response.status}")
            usage = HunterQuota.parse(response.content).verifications
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        except msgspec.ValidationError:
            return "ok, without a word on the quota"
        return f"ok, {usage.available - usage.used} of {usage.available} verifications left"


def parse_deliverability(response: HttpResponse) -> Deliverability | None:
    """Parse the verifier's response; None while it is still at work.

    Raises `InvalidResponse` for anything else.
    """
    if response.status == IN_PROGRESS_STATUS:
        return None
    if response.status in UNKNOWN_STATUSES:
        return Deliverability.UNKNOWN
    if response.status != OK:
        raise InvalidResponse(f"status {response.status}")
    try:
        status = msgspec.convert(response.content, VerifierResponse).data.status
    except msgspec.ValidationError:
        status = None
    if status is None:
        raise InvalidResponse("an answer in another form")
    return DELIVERABILITY_BY_STATUS.get(status, Deliverability.UNKNOWN)
