"""The keys of trusted issuers, found by OpenID discovery or RFC 8414, and cached."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AddressFamily
from urllib.parse import SplitResult, urlsplit

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.guarded_client import Breaker
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.errors import Unavailable

KEYS_TTL_SECONDS = 3600.0
"""How long keys are used before the issuer is asked for them again."""

STALE_KEYS_TTL_SECONDS = 86_400.0
"""How long they are used while the issuer does not answer."""

UNKNOWN_KEY_INTERVAL_SECONDS = 30.0
"""An unknown key id leads to one request in this time; anybody can make key ids up."""

FETCH_TIMEOUT_SECONDS = 3.0
"""The longest wait for the metadata and the keys together."""

MAX_KEYS = 100
OK = 200
Key = Mapping[str, object]
IpAddress = IPv4Address | IPv6Address
IsPublic = Callable[[IpAddress], bool]


class PublicAddressResolver(ThreadedResolver):
    """Resolves host names to public addresses only, and fails for others."""

    def __init__(self, is_public: IsPublic) -> None:
        """Take what decides which addresses are public."""
        super().__init__()
        self._is_public = is_public

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """Return the public addresses; the connection goes to one of them."""
        found = await super().resolve(host, port, family)
        public = [each for each in found if self._is_public(ip_address(each["host"]))]
        if not public:
            raise OSError("the host has no public address")
        return public


class IssuerKeySet:
    """The keys of one issuer."""

    def __init__(
        self,
        issuer: str,
        client: HttpClient,
        public_client: HttpClient,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`public_client` connects to public addresses only."""
        self._issuer = issuer
        self._client = client
        self._public_client = public_client
        self._now = now
        self._keys: list[Key] = []
        self._fetched_at = self._asked_at = -float("inf")
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None
        self.breaker = Breaker(f"issuer {issuer}", now)

    async def find(self, kid: str | None) -> Sequence[Key]:
        """Return the keys with this id, or all; raises `Unavailable` if they cannot be had."""
        if self._is_due(kid):
            await self._refresh()
        found = self._matching(kid)
        is_usable = self._now() - self._fetched_at < STALE_KEYS_TTL_SECONDS
        if not is_usable or (self._has_failed and not found):
            raise Unavailable(f"The keys of {self._issuer} cannot be had.")
        return found

    async def close(self) -> None:
        """Cancel the request, if any."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _is_due(self, kid: str | None) -> bool:
        now = self._now()
        if now - self._fetched_at >= KEYS_TTL_SECONDS:
            return True
        return not self._matching(kid) and now - self._asked_at >= UNKNOWN_KEY_INTERVAL_SECONDS

    def _matching(self, kid: str | None) -> list[Key]:
        return [key for key in self._keys if kid is None or key.get("kid") == kid]

    async def _refresh(self) -> None:
        """Fetch the keys once for all waiting callers.

        While the breaker is open nobody waits: one request at a time probes the issuer.
        """
        if self._fetching is None or self._fetching.done():
            if self.breaker.is_open and not self.breaker.acquire_probe():
                return
            self._asked_at = self._now()
            self._fetching = asyncio.create_task(self._fetch())
        if not self.breaker.is_open:
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):
                self._keys = await self._load()
        except (InvalidResponse, TimeoutError) as error:
            self._has_failed = True
            self.breaker.record_failure(str(error) or "TimeoutError")
            return
        self._fetched_at, self._has_failed = self._now(), False
        self.breaker.record_success()

    async def _load(self) -> list[Key]:
        url = await self._discover()
        response = await _get(self._client_for(url), url)
        content = response.content
        keys = content.get("keys") if isinstance(content, dict) else None
        if response.status != OK or not isinstance(keys, list):
            raise InvalidResponse(f"no key set, status {response.status}")
        return [key for key in keys[:MAX_KEYS] if isinstance(key, dict)]

    async def _discover(self) -> str:
        """Return the URL of the keys, from the first metadata document that exists."""
        status = 0
        for url in discovery_urls(self._issuer):
            response = await _get(self._client, url)
            status, content = response.status, response.content
            if status != OK:
                continue
            if not isinstance(content, dict) or content.get("issuer") != self._issuer:
                raise InvalidResponse("the metadata is of another issuer")
            return str(content.get("jwks_uri"))
        raise InvalidResponse(f"no metadata, status {status}")

    def _client_for(self, url: str) -> HttpClient:
        """Return the client that may fetch the keys.

        The operator has named the issuer's own host. Another host must be public, and have https
        and a name.
        """
        target = None
        with suppress(ValueError):
            target = urlsplit(url)
            if _origin(target) == _origin(urlsplit(self._issuer)):
                return self._client
        if target is None or target.scheme != "https" or not _has_name(target):
            raise InvalidResponse("the URL of the keys is not allowed")
        return self._public_client


class CachedIssuerKeys:
    """The keys of all trusted issuers; a dead issuer does not slow down the others."""

    def __init__(self, issuers: Iterable[str], client: HttpClient, public: HttpClient) -> None:
        """Nothing is fetched before the first token."""
        self._key_sets = {each: IssuerKeySet(each, client, public) for each in issuers}

    async def find(self, issuer: str, kid: str | None) -> Sequence[Key]:
        return await self._key_sets[issuer].find(kid)

    def samples(self) -> Iterator[Sample]:
        """Return whether the breaker of each issuer is open."""
        for issuer, keys in self._key_sets.items():
            labels = (f"issuer {issuer}",)
            yield Sample("referral_breaker_open", labels, keys.breaker.is_open)

    async def close(self) -> None:
        """Cancel all requests."""
        for keys in self._key_sets.values():
            await keys.close()


class IssuerHealthProbe:
    """Checks whether an issuer's keys can be had."""

    def __init__(self, issuer: str, keys: CachedIssuerKeys) -> None:
        """Check one of the trusted issuers."""
        self.name = f"issuer {issuer}"
        self._issuer = issuer
        self._keys = keys

    async def check(self) -> str:
        """Return the number of keys, or raise `Unavailable`."""
        keys = await self._keys.find(self._issuer, None)
        return f"ok, {len(keys)} keys"


def discovery_urls(issuer: str) -> tuple[str, str]:
    """Return the URLs of the metadata: OpenID Connect Discovery, then RFC 8414, section 3.1."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
    )


async def _get(client: HttpClient, url: str) -> HttpResponse:
    return await client.get(url, {}, timeout_seconds=FETCH_TIMEOUT_SECONDS)


def _origin(parts: SplitResult) -> tuple[str, str]:
    if "@" in parts.netloc:
        raise ValueError("a user in the URL")
    return parts.scheme, parts.netloc.lower()


def _has_name(parts: SplitResult) -> bool:
    """Return whether the host is a name: the resolver does not see addresses."""
    host = parts.hostname or ""
    return bool(host) and "@" not in parts.netloc and host[-1:].isalpha() and ":" not in host
