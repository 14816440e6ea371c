"""The dependency container: it binds adapters to ports, and ports to use cases."""

from dishka import AsyncContainer, Provider, make_async_container

from referral.adapters.observability.samples import RequestMetrics
from referral.container.adapters import Adapters, NoThirdParties
from referral.container.observability import Observability
from referral.container.use_cases import UseCases
from referral.settings import Settings


def make_container(
    settings: Settings, *replacements: Provider, request_counts: RequestMetrics | None = None
) -> AsyncContainer:
    """Create the container; `replacements` override providers in tests."""
    context = {Settings: settings, RequestMetrics: request_counts or RequestMetrics()}
    return make_async_container(
        Adapters(),
        _third_parties(settings),
        Observability(),
        UseCases(),
        *replacements,
        context=context,
    )


def _third_parties(settings: Settings) -> Provider:
    if not settings.uses_third_parties:
        return NoThirdParties()
    from referral.container.third_parties import ThirdParties  # noqa: PLC0415 - 5 MB of memory

    return ThirdParties()
