"""The third parties that the settings name. This module is loaded only where they name one.

The HTTP client and the list of domains take 7 MB of memory.
"""

from collections.abc import AsyncIterator

from dishka import Provider, Scope, provide

from referral.adapters.third_parties.clearbit import Clearbit, ClearbitPart
from referral.adapters.third_parties.clearbit_parser import HttpEnrichment
from referral.adapters.third_parties.disposable_domains import OfflineVerifier
from referral.adapters.third_parties.guarded_client import taking
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.hunter import Hunter, HunterPart, HunterVerifier
from referral.core.ports.caching import Limits
from referral.core.ports.system import HealthProbe
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.settings import OFFLINE, Settings

HUNTER_URL = "https://api.hunter.io"
CLEARBIT_URL = "https://person.clearbit.com"


class ThirdParties(Provider):
    """E-mail verification and enrichment."""

    scope = Scope.APP

    @provide
    async def http(self) -> AsyncIterator[HttpClient]:
        client = HttpClient()
        yield client
        await client.close()

    @provide
    def hunter(self, http: HttpClient, settings: Settings) -> Hunter:
        return Hunter(http, settings.hunter_url or HUNTER_URL, settings.hunter_api_key)

    @provide
    def clearbit(self, http: HttpClient, settings: Settings) -> Clearbit:
        return Clearbit(http, settings.clearbit_url or CLEARBIT_URL, settings.clearbit_api_key)

    @provide
    async def email_verifier(
        self, hunter: Hunter, limits: Limits, settings: Settings
    ) -> AsyncIterator[EmailVerifier | None]:
        if not settings.asks_hunter:
            yield OfflineVerifier() if settings.hunter_url == OFFLINE else None
            return
        verifier = HunterVerifier(hunter, limits)
        yield verifier
        await verifier.close()

    @provide
    async def enrichment(
        self, hunter: Hunter, clearbit: Clearbit, limits: Limits, settings: Settings
    ) -> AsyncIterator[Enrichment | None]:
        match settings.enrichment:
            case "off":
                yield None
                return
            case "hunter":
                service, send = "EmailHunter's enrichment", hunter.enrich
            case "clearbit":
                service, send = "Clearbit", clearbit.enrich
        enrichment = HttpEnrichment(service, send, taking(limits, settings.enrichment))
        yield enrichment
        await enrichment.close()

    @provide
    def parts(
        self, hunter: Hunter, clearbit: Clearbit, settings: Settings
    ) -> tuple[HealthProbe, ...]:
        parts: list[HealthProbe] = []
        if settings.asks_hunter:
            parts.append(HunterPart(hunter))
        if settings.enrichment == "clearbit":
            parts.append(ClearbitPart(clearbit))
        return tuple(parts)
