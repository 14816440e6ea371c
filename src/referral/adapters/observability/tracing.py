"""OpenTelemetry traces by the service's own spans, which contain no personal data.

Without the extra `referral[tracing]`, or without the variables of OpenTelemetry, spans do nothing.
Decision 51 says why the published instrumentations are not used.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Scope = Any
"""The types of ASGI; Litestar's own are for its web layer only."""
Message = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

TRACEPARENT_HEADER = "traceparent"
"""The only header that is propagated: `tracestate` and baggage may contain anything."""

MIN_SERVER_ERROR_STATUS = 500
KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("referral")


def is_requested(environment: Mapping[str, str]) -> bool:
    """Return whether the variables of OpenTelemetry enable tracing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if exporters:
        return exporters != "none"
    return any(environment.get(name, "").strip() for name in endpoints)


def set_up_tracing(environment: Mapping[str, str]) -> None:
    """Export traces if the variables of OpenTelemetry enable it."""
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
        log.warning("tracing disabled: install 'referral[tracing]'")
        return
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        log.warning("tracing disabled: the exporter must be 'otlp' or 'none'", exporter=exporter)
        return
    name = environment.get("OTEL_SERVICE_NAME", "").strip() or "referral"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def is_enabled() -> bool:
    """Return whether spans are exported."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def flush_spans() -> None:
    """Export the remaining spans, for up to two seconds; blocks, so call it in a thread."""
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
    """Record a block as a span; of an exception only the class, as its text may contain a value."""
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
    """Return the headers that propagate the current trace."""
    headers: dict[str, str] = {}
    _propagator.inject(headers)
    return {name: value for name, value in headers.items() if name == TRACEPARENT_HEADER}


@contextmanager
def job_span(kind: str, headers: Mapping[str, object]) -> Iterator[None]:
    """Record an attempt at a job as a span in the trace that enqueued the job."""
    if not is_enabled():
        yield
        return
    parent = _extract(str(headers.get(TRACEPARENT_HEADER, "")))
    attributes = {"messaging.system": "postgresql", "messaging.destination.name": kind}
    with span(f"job {kind}", SpanKind.CONSUMER, attributes, parent):
        yield


class TracingMiddleware:
    """ASGI middleware that records each request as a span with its route, without its path."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an ASGI app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a connection; only HTTP requests become spans."""
        if scope["type"] != "http":
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
