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

from referral.adapters.redis.client import RedisClient
from referral.core.entities.mail import Mail
from referral.core.ports.delivery import Mailer

T = TypeVar("T")

TRACEPARENT_HEADER = "traceparent"
"""All that is taken over from others: `tracestate` and baggage may hold anything."""

MIN_SERVER_ERROR_STATUS = 500
KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("referral")


def is_requested(environment: Mapping[str, str]) -> bool:
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
    if not is_requested(environment):
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


def is_enabled() -> bool:
    """Tell whether spans go anywhere."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def flush_spans() -> None:
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
    ) as current_span:
        try:
            yield current_span
        except BaseException as error:
            current_span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def trace_headers() -> dict[str, str]:
    """Return what takes the current trace along."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return {name: value for name, value in headers.items() if name == TRACEPARENT_HEADER}


@contextmanager
def job_span(kind: str, headers: Mapping[str, object]) -> Iterator[None]:
    """Time an attempt at a job, within the trace that queued it."""
    if not is_enabled():
        yield
        return
    parent = _extract(str(headers.get(TRACEPARENT_HEADER, "")))
    attributes = {"messaging.system": "postgresql", "messaging.destination.name": kind}
    with span(f"job {kind}", SpanKind.CONSUMER, attributes, parent):
        yield


class TracingMiddleware:
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

        async def send_recording_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        values = [value for name, value in scope["headers"] if name == TRACEPARENT_HEADER.encode()]
        parent = _extract(values[0].decode("latin-1") if len(values) == 1 else "")
        with span("request", SpanKind.SERVER, {}, parent) as current_span:
            try:
                await self._app(scope, receive, send_recording_status)
            finally:
                _set_http_attributes(current_span, scope, status)


class TracedRedis(RedisClient):
    """Redis, with a span for each question."""

    async def execute(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """See `RedisServer`."""
        with span("redis", SpanKind.CLIENT, {"db.system.name": "redis"}):
            return await super().execute(command)


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
    return _propagator.extract({TRACEPARENT_HEADER: traceparent}, context.Context())


def _set_http_attributes(request_span: Span, scope: Any, status: int) -> None:  # noqa: ANN401 - Litestar adds the route
    route = scope.get("path_template") or "unknown"
    method = scope["method"] if scope["method"] in KNOWN_METHODS else "_OTHER"
    request_span.update_name(f"{method} {route}")
    request_span.set_attributes(
        {
            "http.request.method": method,
            "http.response.status_code": status,
            "http.route": route,
        }
    )
    if status >= MIN_SERVER_ERROR_STATUS:
        request_span.set_status(Status(StatusCode.ERROR))
