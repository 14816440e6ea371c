"""EmailHunter (hunter.io), or a server with the same API."""

from collections.abc import Iterator
from datetime import timedelta

import msgspec
from msgspec import Struct

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.guarded_client import GuardedClient, taking
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import InvalidResponse, Reply
from referral.core.entities.deliverability import Deliverability
from referral.core.errors import Unavailable
from referral.core.ports.caching import Limits

SERVICE = "hunter"
CHECK_SECONDS = 5.0
OK, UNAUTHORIZED = 200, 401

STILL_RUNNING = 202
UNDECIDED_STATUSES = frozenset({222, 400, 422, 451})
"""Failed at the remote server, not acceptable, and not to be told: these are about one address, and
not about the service.
"""

VERDICTS = {verdict.value: verdict for verdict in Deliverability}


class Found(Struct):
    """What is said of an address."""

    status: str


class Verified(Struct):
    """The answer of the verifier."""

    data: Found


class Meter(Struct):
    """What was used of what there is."""

    used: int
    available: int


class HunterQuota(Struct):
    """The answer about the key's own account."""

    verifications: Meter

    @classmethod
    def read(cls, content: object) -> "HunterQuota":
        """Read it; raises `ValidationError`."""
        tree = msgspec.convert(content, dict[str, dict[str, object]])
        return msgspec.convert(tree.get("data", {}).get("requests"), cls)


class Hunter:
    """The server and the key, which goes along as the API has it, in the query."""

    def __init__(self, http: HttpClient, url: str, key: str) -> None:
        """Take where the API is, without its version."""
        self._http = http
        self._url = url.removesuffix("/v2")
        self._key = {"api_key": key} if key else {}

    async def verify(self, mailbox: str, within: float) -> Reply:
        """Ask whether mail arrives, or raise `InvalidResponse`."""
        return await self._get("email-verifier", within, email=mailbox)

    async def enrich(self, mailbox: str, within: float) -> Reply:
        """Ask what is known of the owner, in Clearbit's form, or raise `InvalidResponse`."""
        return await self._get("combined/find", within, email=mailbox, clearbit_format="true")

    async def account(self) -> Reply:
        """Ask about the key's own account, or raise `InvalidResponse`."""
        return await self._get("account", CHECK_SECONDS)

    async def _get(self, path: str, within: float, **query: str) -> Reply:
        return await self._http.get(f"{self._url}/v2/{path}", query | self._key, within=within)


class HunterVerifier:
    """See the port `EmailVerifier`."""

    may_learn = True

    def __init__(self, hunter: Hunter, limits: Limits) -> None:
        """Take the server, and what keeps count of its budget."""
        self._inquiries = GuardedClient(
            "EmailHunter's verifier", hunter.verify, read_verdict, taking(limits, SERVICE)
        )

    async def verify(self, mailbox: str, within: timedelta) -> Deliverability:
        """See the port."""
        verdict = await self._inquiries.ask(mailbox, within)
        if verdict is None:
            raise Unavailable("EmailHunter is still verifying")
        return verdict

    def measures(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._inquiries.measures()

    async def close(self) -> None:
        """Give up what nobody waits for."""
        await self._inquiries.close()


class HunterPart:
    """The port `Part`: whether the key works, and what is left of the quota."""

    name = "EmailHunter"

    def __init__(self, hunter: Hunter) -> None:
        """Take the server."""
        self._hunter = hunter

    async def check(self) -> str:
        """See the port. This question costs nothing."""
        try:
            reply = await self._hunter.account()
            if reply.status == UNAUTHORIZED:
                raise Unavailable("refuses the key")
            if reply.status != OK:
                raise Unavailable(f"answers with status {reply.status}")
            meter = HunterQuota.read(reply.content).verifications
        except InvalidResponse as error:
            raise Unavailable(f"does not answer ({error})") from error
        except msgspec.ValidationError:
            return "ok, without a word on the quota"
        return f"ok, {meter.available - meter.used} of {meter.available} verifications left"


def read_verdict(reply: Reply) -> Deliverability | None:
    """Parse the verifier's response; None while it is still at work.

    Raises `InvalidResponse` for anything else.
    """
    if reply.status == STILL_RUNNING:
        return None
    if reply.status in UNDECIDED_STATUSES:
        return Deliverability.UNKNOWN
    if reply.status != OK:
        raise InvalidResponse(f"status {reply.status}")
    try:
        status = msgspec.convert(reply.content, Verified).data.status
    except msgspec.ValidationError:
        status = None
    if status is None:
        raise InvalidResponse("an answer in another form")
    return VERDICTS.get(status, Deliverability.UNKNOWN)
