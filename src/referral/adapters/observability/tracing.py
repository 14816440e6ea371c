"""Traces by OpenTelemetry: spans of our own, which name what was done and never for whom.

Without the extra `referral[tracing]`, or without its variables, the API alone is here and does
nothing. Why not the published instrumentations: decision 51.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from redis.asyncio import Redis

from referral.adapters.redis.client import RedisServer
from referral.core.entities.mail import Mail
from referral.core.ports.delivery import Mailer

T = TypeVar("T")

PARENT = "traceparent"
"""All that is taken over from others: `tracestate` and baggage may hold anything."""

ERROR = 500
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("referral")


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Tell whether the standard variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if exporters:
        return exporters != "none"
    return any(environment.get(name, "").strip() for name in endpoints)


def set_up_tracing(environment: Mapping[str, str]) -> None:
    """Send traces where the standard variables say, if they do."""
    if not is_wanted(environment):
        return
    log = structlog.get_logger()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - of the extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        log.warning("no traces: install 'referral[tracing]' for them")
        return
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        log.warning("no traces: only 'otlp' and 'none' are known", exporter=exporter)
        return
    name = environment.get("OTEL_SERVICE_NAME", "").strip() or "referral"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def is_on() -> bool:
    """Tell whether spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def send_rest() -> None:
    """Send the spans that are not sent yet; to be called off the event loop."""
    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        flush(2_000)


@contextmanager
def span(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
    parent: context.Context | None = None,
) -> Iterator[Span]:
    """Time a block. Of an error the class is told, as its text may show a value."""
    with _tracer.start_as_current_span(
        name,
        parent,
        kind,
        dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def carried() -> dict[str, str]:
    """Return what takes the current trace along."""
    found: dict[str, str] = {}
    _propagator.inject(found)
    return {name: value for name, value in found.items() if name == PARENT}


@contextmanager
def job_span(kind: str, taken_along: Mapping[str, object]) -> Iterator[None]:
    """Time an attempt at a job, within the trace that queued it."""
    if not is_on():
        yield
        return
    parent = _extract(str(taken_along.get(PARENT, "")))
    attributes = {"messaging.system": "postgresql", "messaging.destination.name": kind}
    with span(f"job {kind}", SpanKind.CONSUMER, attributes, parent):
        yield


class TracedApp:
    """An ASGI app around the service: a span a request, with its route and not its path."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the app inside."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        sent = [value for name, value in scope["headers"] if name == PARENT.encode()]
        parent = _extract(sent[0].decode("latin-1") if len(sent) == 1 else "")
        with span("request", SpanKind.SERVER, {}, parent) as made:
            try:
                await self._app(scope, receive, send_noting)
            finally:
                _name(made, scope, status)


class TracedRedis(RedisServer):
    """Redis, with a span for each question."""

    async def ask(self, question: Callable[[Redis], Awaitable[T]]) -> T:
        """See `RedisServer`."""
        with span("redis", SpanKind.CLIENT, {"db.system.name": "redis"}):
            return await super().ask(question)


class TracedMailer:
    """See the port `Mailer`; a span for each mail."""

    def __init__(self, mailer: Mailer, url: str) -> None:
        """Take who mails, and the server's URL."""
        self._mailer = mailer
        self._attributes = {"server.address": urlsplit(url).hostname or ""}

    async def send(self, mail: Mail) -> None:
        """See the port."""
        with span("smtp", SpanKind.CLIENT, self._attributes):
            await self._mailer.send(mail)


def _extract(traceparent: str) -> context.Context:
    return _propagator.extract({PARENT: traceparent}, context.Context())


def _name(made: Span, scope: Any, status: int) -> None:  # noqa: ANN401 - Litestar adds the route
    route = scope.get("path_template") or "unknown"
    method = scope["method"] if scope["method"] in METHODS else "_OTHER"
    made.update_name(f"{method} {route}")
    made.set_attributes(
        {
            "http.request.method": method,
            "http.response.status_code": status,
            "http.route": route,
        }
    )
    if status >= ERROR:
        made.set_status(Status(StatusCode.ERROR))
