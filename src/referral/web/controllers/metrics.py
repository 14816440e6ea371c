"""Figures for Prometheus, and who may have them."""

from itertools import chain
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.types import Scope

from referral.core.ports.system import Metrics
from referral.web.client_ip import TrustedProxies, forwarded_hops, parse_ip
from referral.web.injection import inject
from referral.web.problems import problem_responses

UNSUPPORTED_PROXY_HEADERS = {b"forwarded", b"x-real-ip"}
"""What other proxies than those that we know say about a request that they pass on."""


class MetricsController(Controller):
    """How the service does."""

    path = "/metrics"
    tags = ("Operations",)

    @get(
        "",
        summary="Figures",
        media_type="text/plain",
        response_description="The figures.",
        responses=problem_responses(404),
    )
    @inject
    async def show(
        self, request: Request[Any, Any, Any], metrics: FromDishka[Metrics]
    ) -> Response[str]:
        """Show the figures in the text format of Prometheus, to this machine and to the networks of
        `REFERRAL_TRUSTED_PROXIES`. Everyone else is told that there is nothing here.
        """
        if not is_internal(request.scope):
            raise NotFoundException
        text = (await metrics.render()).decode()
        # The framework adds it again.
        kind = metrics.content_type.removesuffix("; charset=utf-8")
        return Response(text, media_type=kind)


def is_internal(scope: Scope) -> bool:
    """Tell whether the peer, and everyone that it speaks for, is of this machine or listed."""
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    named = {name for name, _ in scope["headers"]}
    if scope["client"] is None or named & UNSUPPORTED_PROXY_HEADERS:
        return False
    hops = chain(scope["client"][:1], forwarded_hops(scope["headers"]))
    return all(_is_loopback(hop) or proxies.trusts(hop) for hop in hops)


def _is_loopback(text: str) -> bool:
    address = parse_ip(text)
    return address is not None and address.is_loopback
