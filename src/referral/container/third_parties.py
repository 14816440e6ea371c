"""E-mail verification and enrichment. This module is imported only when the settings enable one.

Its HTTP client takes 5 MB of memory.
"""

from collections.abc import AsyncIterator

from dishka import Provider, Scope, provide

from referral.adapters.third_parties.clearbit import ClearbitClient, ClearbitHealthProbe
from referral.adapters.third_parties.clearbit_parser import ClearbitFormatEnrichment
from referral.adapters.third_parties.disposable_domains import DisposableDomainVerifier
from referral.adapters.third_parties.guarded_client import rate_budget
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.hunter import HunterClient, HunterHealthProbe, HunterVerifier
from referral.adapters.third_parties.issuer_keys import (
    CachedIssuerKeys,
    IssuerHealthProbe,
    PublicAddressResolver,
)
from referral.adapters.webhooks.networks import WebhookNetworks
from referral.core.ports.caching import RateLimiter
from referral.core.ports.subject_tokens import IssuerKeys
from referral.core.ports.system import HealthProbe
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.settings import HUNTER_OFFLINE, Settings

DEFAULT_HUNTER_URL = "https://api.hunter.io"
DEFAULT_CLEARBIT_URL = "https://person.clearbit.com"


class ThirdParties(Provider):
    """The adapters of third parties."""

    scope = Scope.APP

    @provide
    async def http_client(self) -> AsyncIterator[HttpClient]:
        client = HttpClient()
        yield client
        await client.close()

    @provide
    def hunter(self, http_client: HttpClient, settings: Settings) -> HunterClient:
        return HunterClient(
            http_client, settings.hunter_url or DEFAULT_HUNTER_URL, settings.hunter_api_key
        )

    @provide
    def clearbit(self, http_client: HttpClient, settings: Settings) -> ClearbitClient:
        return ClearbitClient(
            http_client, settings.clearbit_url or DEFAULT_CLEARBIT_URL, settings.clearbit_api_key
        )

    @provide
    async def email_verifier(
        self, hunter: HunterClient, limits: RateLimiter, settings: Settings
    ) -> AsyncIterator[EmailVerifier | None]:
        if not settings.uses_hunter:
            yield DisposableDomainVerifier() if settings.hunter_url == HUNTER_OFFLINE else None
            return
        verifier = HunterVerifier(hunter, limits)
        yield verifier
        await verifier.close()

    @provide
    async def enrichment(
        self,
        hunter: HunterClient,
        clearbit: ClearbitClient,
        limits: RateLimiter,
        settings: Settings,
    ) -> AsyncIterator[Enrichment | None]:
        match settings.enrichment:
            case "off":
                yield None
                return
            case "hunter":
                service, send = "EmailHunter's enrichment", hunter.enrich
            case "clearbit":
                service, send = "Clearbit", clearbit.enrich
        enrichment = ClearbitFormatEnrichment(
            service, send, rate_budget(limits, settings.enrichment)
        )
        yield enrichment
        await enrichment.close()

    @provide
    async def cached_issuer_keys(
        self, http_client: HttpClient, settings: Settings
    ) -> AsyncIterator[CachedIssuerKeys | None]:
        if not settings.trusted_issuers:
            yield None
            return
        # No network is named here: the keys of an issuer on another host come from the internet.
        public_client = HttpClient(PublicAddressResolver(WebhookNetworks(()).allows))
        keys = CachedIssuerKeys(settings.trusted_issuers, http_client, public_client)
        yield keys
        await keys.close()
        await public_client.close()

    @provide
    def issuer_keys(self, keys: CachedIssuerKeys | None) -> IssuerKeys | None:
        return keys

    @provide
    def health_probes(
        self,
        hunter: HunterClient,
        clearbit: ClearbitClient,
        issuer_keys: CachedIssuerKeys | None,
        settings: Settings,
    ) -> tuple[HealthProbe, ...]:
        probes: list[HealthProbe] = []
        if issuer_keys is not None:
            probes += [IssuerHealthProbe(each, issuer_keys) for each in settings.trusted_issuers]
        if settings.uses_hunter:
            probes.append(HunterHealthProbe(hunter))
        if settings.enrichment == "clearbit":
            probes.append(ClearbitHealthProbe(clearbit))
        return tuple(probes)
