"""Metrics for Prometheus, for internal callers only."""

from itertools import chain
from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, get
from litestar.exceptions import NotFoundException
from litestar.types import Scope

from referral.core.ports.system import Metrics
from referral.web.client_ip import TrustedProxies, forwarded_hops, parse_ip
from referral.web.injection import inject
from referral.web.problem_types import problem_responses

UNSUPPORTED_PROXY_HEADERS = {b"forwarded", b"x-real-ip"}
"""Headers of proxies that do not set `X-Forwarded-For`. Such a request has passed a proxy, and the
client IP cannot be verified.
"""


class MetricsController(Controller):
    """Route for metrics."""

    path = "/metrics"
    tags = ("Operations",)

    @get(
        "",
        operation_id="getMetrics",
        summary="Get the metrics",
        media_type="text/plain",
        response_description="The metrics.",
        responses=problem_responses(404),
    )
    @inject
    async def show(
        self, request: Request[Any, Any, Any], metrics: FromDishka[Metrics]
    ) -> Response[str]:
        """Return metrics in the text format of Prometheus, to callers on this machine and in the
        networks of `REFERRAL_TRUSTED_PROXIES`. The response to other callers is 404.
        """
        if not is_internal(request.scope):
            raise NotFoundException
        text = (await metrics.render()).decode()
        # Litestar appends the charset again.
        media_type = metrics.content_type.removesuffix("; charset=utf-8")
        return Response(text, media_type=media_type)


def is_internal(scope: Scope) -> bool:
    """Return whether the peer and all forwarded hops are local or trusted proxies."""
    proxies: TrustedProxies = scope["litestar_app"].state.trusted_proxies
    header_names = {name for name, _ in scope["headers"]}
    if scope["client"] is None or header_names & UNSUPPORTED_PROXY_HEADERS:
        return False
    hops = chain(scope["client"][:1], forwarded_hops(scope["headers"]))
    return all(_is_loopback(hop) or proxies.trusts(hop) for hop in hops)


def _is_loopback(text: str) -> bool:
    address = parse_ip(text)
    return address is not None and address.is_loopback
