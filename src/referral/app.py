"""The ASGI application: controllers, exception handlers, OpenAPI document and lifespan."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dishka import AsyncContainer, Provider
from litestar import Litestar
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    Contact,
    License,
    Server,
    Tag,
)
from litestar.types import ASGIApp

from referral.adapters.jobs.worker import WorkerGroup
from referral.adapters.observability.logs import configure_logging
from referral.adapters.observability.prometheus import PrometheusMetrics
from referral.adapters.observability.samples import RequestMetrics
from referral.adapters.observability.tracing import (
    TracingMiddleware,
    flush_spans,
    is_enabled,
    set_up_tracing,
)
from referral.container import make_container
from referral.core.policies.idempotency import IdempotentReplay
from referral.core.ports.caching import RateLimiter
from referral.core.ports.security import AccessTokenIssuer, SecretCipher
from referral.core.use_cases.lookups import LookUpCode
from referral.settings import Settings, read_settings
from referral.web.before_request import respond_to_options
from referral.web.client_ip import TrustedProxies
from referral.web.controllers.account_export import AccountExportController
from referral.web.controllers.all_codes import AllCodesController
from referral.web.controllers.audit import AuditController
from referral.web.controllers.clients import ClientsController
from referral.web.controllers.code_sharing import CodeSharingController
from referral.web.controllers.codes import CodesController
from referral.web.controllers.current_user import CurrentUserController
from referral.web.controllers.discovery import DiscoveryController
from referral.web.controllers.email_confirmation import EmailConfirmationController
from referral.web.controllers.events import EventsController
from referral.web.controllers.health import HealthController
from referral.web.controllers.lookups import (
    CodeValidityController,
    LookupController,
    ShareLinkController,
)
from referral.web.controllers.metrics import MetricsController
from referral.web.controllers.password_reset import PasswordResetController
from referral.web.controllers.referral_export import ReferralExportController
from referral.web.controllers.referral_review import ReferralReviewController
from referral.web.controllers.referrals import ReferralsController
from referral.web.controllers.referrers import ReferrersController
from referral.web.controllers.registration import RegistrationController
from referral.web.controllers.statistics import StatisticsController
from referral.web.controllers.token_endpoint import TokenController
from referral.web.controllers.token_introspection import TokenIntrospectionController
from referral.web.controllers.user_administration import UserAdministrationController
from referral.web.controllers.users import ExternalUsersController, UsersController
from referral.web.controllers.webhook_deliveries import WebhookDeliveriesController
from referral.web.controllers.webhooks import WebhooksController
from referral.web.idempotency import send_stored_response
from referral.web.middleware.cors import OriginFilter, make_cors_config
from referral.web.middleware.draining import Drain
from referral.web.middleware.request_context import RequestContextMiddleware
from referral.web.middleware.request_guard import MAX_BODY_BYTES, RequestGuard
from referral.web.openapi_security import SECURITY_SCHEMES
from referral.web.openapi_webhooks import EVENT_TYPES_TAG
from referral.web.pages.account import AccountController
from referral.web.pages.authorize import AuthorizationController
from referral.web.pages.docs import DocsController, ProblemTypesController
from referral.web.pages.email_links import EmailLinkPagesController
from referral.web.pages.join import JoinController
from referral.web.pages.login import LoginController
from referral.web.pages.refusals import UNKNOWN_PATH_HANDLERS
from referral.web.pages.unsubscribe import UnsubscribeController
from referral.web.problem_types import EXAMPLE_PUBLIC_URL
from referral.web.problems import EXCEPTION_HANDLERS
from referral.web.request_body import StrictRequest
from referral.web.streaming import StreamLimits

API_DESCRIPTION = """\
Referral codes that expire, one active code per user, and the referrals that they bring.

Errors are problem documents (RFC 9457): `code` identifies the problem, `type` links to its
description; `request_id` is also in the `X-Request-ID` header of every response and in the log.
Times are RFC 3339 in UTC. A request body must not have unknown fields. To get the next page of a
list, pass its `next_cursor` as `cursor`.
"""

TAG_DESCRIPTIONS = {
    "Accounts": "Registration.",
    "Tokens": "Log-in, and tokens for clients.",
    "My codes": "The referral codes of the signed-in user.",
    "Look-ups": "Queries about the codes of any user.",
    "Referrals": "Users who registered with a referral code.",
    "E-mail links": "Confirmation of the e-mail address, and forgotten passwords.",
    "My account": "The account of the signed-in user.",
    "Users": "The users of a product, for admins and clients.",
    "Administration": "What admins, and clients with the scope, can see and change.",
    "Webhooks": "Receivers of events, and the deliveries to them.",
    "Events": "Changes of users, codes and referrals, for admins and clients.",
    "Clients": "What other services need to validate and revoke tokens.",
    "Operations": "Health checks and metrics.",
    EVENT_TYPES_TAG: "The requests to webhooks, by type of event: Standard Webhooks, with the "
    "headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.",
}

CONTROLLERS = [
    AccountController,
    AccountExportController,
    AllCodesController,
    AuditController,
    AuthorizationController,
    ClientsController,
    CodeSharingController,
    CodeValidityController,
    CodesController,
    CurrentUserController,
    DiscoveryController,
    DocsController,
    EmailConfirmationController,
    EmailLinkPagesController,
    EventsController,
    ExternalUsersController,
    HealthController,
    JoinController,
    LoginController,
    LookupController,
    MetricsController,
    PasswordResetController,
    ProblemTypesController,
    ReferralExportController,
    ReferralReviewController,
    ReferralsController,
    ReferrersController,
    RegistrationController,
    ShareLinkController,
    StatisticsController,
    TokenController,
    TokenIntrospectionController,
    UnsubscribeController,
    UserAdministrationController,
    UsersController,
    WebhookDeliveriesController,
    WebhooksController,
]


def create_app(settings: Settings, *replacements: Provider) -> ASGIApp:
    """Create the application; `replacements` override providers of the container in tests."""
    request_counts = RequestMetrics()
    container = make_container(settings, *replacements, request_counts=request_counts)
    drain = Drain()
    state = State(
        {
            "container": container,
            "drain": drain,
            "public_url": settings.public_url,
            "trusted_proxies": TrustedProxies(settings.trusted_proxies),
            "allows_password_grant": settings.allows_password_grant,
            "public_lookups": settings.lookup_access == "public",
            "stream_limits": StreamLimits(),
        }
    )

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.access_tokens = await container.get(AccessTokenIssuer)
        app.state.secret_cipher = await container.get(SecretCipher)
        app.state.look_up = await container.get(LookUpCode)
        app.state.limits = await container.get(RateLimiter)
        metrics = await container.get(PrometheusMetrics)
        try:
            with drain.begin_on_signal():
                async with metrics.publishing(), inline_worker(container, settings):
                    yield
        finally:
            await container.close()
            await asyncio.to_thread(flush_spans)

    cors = make_cors_config(settings.cors_origins)
    app = Litestar(
        CONTROLLERS,
        before_request=respond_to_options,
        cors_config=cors,
        exception_handlers=EXCEPTION_HANDLERS
        | UNKNOWN_PATH_HANDLERS
        | {IdempotentReplay: send_stored_response},
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=_openapi_config(),
        request_class=StrictRequest,
        request_max_body_size=MAX_BODY_BYTES,
        state=state,
    )
    guarded = RequestGuard(OriginFilter(app, cors) if cors else app, settings.public_url)
    https = settings.public_url.startswith("https://")
    with_context = RequestContextMiddleware(guarded, request_counts.observe, drain, https=https)
    return TracingMiddleware(with_context) if is_enabled() else with_context


@asynccontextmanager
async def inline_worker(container: AsyncContainer, settings: Settings) -> AsyncIterator[None]:
    """Run jobs in this process, unless `REFERRAL_WORKER=off` leaves them to `referral worker`."""
    if settings.worker == "off":
        yield
        return
    workers = await container.get(WorkerGroup)
    task = asyncio.create_task(workers.run())
    try:
        yield
    finally:
        workers.stop()
        await task


def create_app_from_environment() -> ASGIApp:
    """Create the application in a server process, from environment variables."""
    settings = read_settings(os.environ)
    configure_logging(settings.log_format, settings.log_level)
    set_up_tracing(os.environ)
    return create_app(settings)


def _openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Referral API",
        version="1",
        description=API_DESCRIPTION,
        license=License(name="MIT", identifier="MIT"),
        components=Components(security_schemes=SECURITY_SCHEMES),
        contact=Contact(name="API documentation", url=f"{EXAMPLE_PUBLIC_URL}/docs"),
        servers=[Server(EXAMPLE_PUBLIC_URL)],
        tags=[Tag(name, description) for name, description in TAG_DESCRIPTIONS.items()],
        use_handler_docstrings=True,
        path="/schema",
        create_examples=False,
        render_plugins=[],
    )
