"""The application: controllers, errors, the OpenAPI document and the life of the container."""

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
    License,
    OAuthFlow,
    OAuthFlows,
    Reference,
    SecurityScheme,
    Tag,
)
from litestar.types import ASGIApp

from referral.adapters.jobs.worker import Worker
from referral.adapters.observability.logs import set_up_logs
from referral.adapters.observability.prometheus import ProcessMetrics
from referral.adapters.observability.samples import RequestCounts
from referral.adapters.observability.tracing import TracedApp, is_on, send_rest, set_up_tracing
from referral.container import make_container
from referral.core.entities.clients import Scope
from referral.core.policies.idempotency import AnsweredBefore
from referral.core.ports.caching import Limits
from referral.core.ports.security import AccessTokens
from referral.core.use_cases.lookups import LookUpCode
from referral.settings import Settings, read_settings
from referral.web.client_ip import TrustedProxies
from referral.web.controllers.accounts import Accounts
from referral.web.controllers.code_mails import CodeMails, Unsubscribing
from referral.web.controllers.codes import Codes
from referral.web.controllers.discovery import Discovery
from referral.web.controllers.docs import Docs
from referral.web.controllers.email_links import Proofs
from referral.web.controllers.health import Health
from referral.web.controllers.lookups import Checks, LookUps, ShareLinks
from referral.web.controllers.me import Me
from referral.web.controllers.metrics import Figures
from referral.web.controllers.referrals import Referrals
from referral.web.controllers.token_state import TokenState
from referral.web.controllers.tokens import TokenEndpoint
from referral.web.idempotency import repeat
from referral.web.middleware.cors import Origins, make_cors
from referral.web.middleware.draining import Drain
from referral.web.middleware.request_context import RequestContextMiddleware
from referral.web.middleware.request_guard import MAX_BODY, RequestGuard
from referral.web.openapi import operation_id
from referral.web.pages.email_links import Pages
from referral.web.parsing import StrictRequest, check_request
from referral.web.problems import HANDLERS, Problems

ABOUT = """\
Referral codes with an expiry, one in force at a time, and who joined with them.

Errors are problem documents (RFC 9457): `type` leads to a description, `request_id` is also in the
`X-Request-ID` header of every answer and in the log. Times are RFC 3339 in UTC. Fields of a body
that a route does not know are refused. In a list, `next_cursor` is the `cursor` of the next page.
"""

TAGS = {
    "Accounts": "Joining, and one's own account.",
    "Tokens": "Logging in, and what other services need to trust the tokens.",
    "My codes": "The referral codes of whoever is signed in.",
    "Look-ups": "What anyone may ask about codes.",
    "Referrals": "Who joined with whose code.",
    "Operations": "For whoever watches over the service.",
}

CONTROLLERS = [
    Accounts,
    Checks,
    CodeMails,
    Codes,
    Discovery,
    Docs,
    Figures,
    Health,
    LookUps,
    Me,
    Pages,
    Problems,
    Proofs,
    Referrals,
    ShareLinks,
    TokenEndpoint,
    TokenState,
    Unsubscribing,
]


def create_app(settings: Settings, *replacements: Provider) -> ASGIApp:
    """Make the service; `replacements` override single parts of the container, as tests do."""
    requests = RequestCounts()
    container = make_container(settings, *replacements, requests=requests)
    drain = Drain()
    state = State(
        {
            "container": container,
            "drain": drain,
            "public_url": settings.public_url,
            "trusted_proxies": TrustedProxies(settings.trusted_proxies),
            "public_lookups": settings.lookup_access == "public",
        }
    )

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.access_tokens = await container.get(AccessTokens)
        app.state.look_up = await container.get(LookUpCode)
        app.state.limits = await container.get(Limits)
        metrics = await container.get(ProcessMetrics)
        try:
            with drain.following_signal():
                async with metrics.publishing(), working(container, settings):
                    yield
        finally:
            await container.close()
            await asyncio.to_thread(send_rest)

    cors = make_cors(settings.cors_origins)
    app = Litestar(
        CONTROLLERS,
        before_request=check_request,
        cors_config=cors,
        exception_handlers=HANDLERS | {AnsweredBefore: repeat},
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=_document(),
        request_class=StrictRequest,
        request_max_body_size=MAX_BODY,
        state=state,
    )
    wire = RequestGuard(Origins(app, cors) if cors else app, settings.public_url)
    https = settings.public_url.startswith("https://")
    enveloped = RequestContextMiddleware(wire, requests.add, drain, https=https)
    return TracedApp(enveloped) if is_on() else enveloped


@asynccontextmanager
async def working(container: AsyncContainer, settings: Settings) -> AsyncIterator[None]:
    """Do the jobs in this process, unless they are left to `referral worker`."""
    if settings.worker == "off":
        yield
        return
    worker = await container.get(Worker)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


def serve() -> ASGIApp:
    """Make the service from the environment: what a worker process of the server calls."""
    settings = read_settings(os.environ)
    set_up_logs(settings.log_format, settings.log_level)
    set_up_tracing(os.environ)
    return create_app(settings)


def _document() -> OpenAPIConfig:
    flow = OAuthFlow(token_url="/api/v1/auth/token", scopes={Scope.ACCOUNT: "One's own account."})  # noqa: S106
    password = SecurityScheme(type="oauth2", flows=OAuthFlows(password=flow))
    bearer = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    client = SecurityScheme(type="http", scheme="basic", description="A client's id and secret.")
    schemes: dict[str, SecurityScheme | Reference] = {
        "password": password,
        "bearer": bearer,
        "client": client,
    }
    return OpenAPIConfig(
        title="Referral API",
        version="1",
        description=ABOUT,
        license=License(name="MIT", identifier="MIT"),
        components=Components(security_schemes=schemes),
        tags=[Tag(name, description) for name, description in TAGS.items()],
        use_handler_docstrings=True,
        operation_id_creator=operation_id,
        path="/schema",
        create_examples=False,
        render_plugins=[],
    )
