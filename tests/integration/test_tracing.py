"""Traces over HTTP, SQL, Redis, SMTP and jobs, as an OpenTelemetry collector receives them."""

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace

from referral.adapters.observability import tracing
from tests.integration.test_logs import run_journey
from tests.support.server_processes import RedisProcess
from tests.support.service_process import running_service
from tests.support.smtp_sink import ReceivedMail, SmtpSink
from tests.support.trace_collector import TraceCollector, run_trace_collector
from tests.support.waiting import wait_until


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_standard_variables_enable_tracing(variables: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    """Tracing is off unless the OTEL_ variables enable it."""
    assert tracing.is_requested(variables) == expected
    assert not tracing.is_enabled(), trace.get_tracer_provider()


def test_service_imports_without_the_extra() -> None:
    """Without the extra the log says what to install."""
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None;"
        "sys.modules['opentelemetry.exporter'] = None;"
        "from referral.adapters.observability import tracing; import referral.app;"
        "tracing.set_up_tracing({'OTEL_TRACES_EXPORTER': 'otlp'}); assert not tracing.is_enabled()"
    )
    result = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "referral[tracing]" in result.stdout + result.stderr


def _smtp_reply(mail: ReceivedMail) -> str:
    return f"550 5.1.1 <{mail.to}> is unknown" if mail.to.startswith("gone") else "250 OK"


async def test_one_trace_covers_request_job_and_mail(
    tmp_path: Path, sink: SmtpSink, own_redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registration's trace has its SQL, job and e-mail, and no span has a secret."""
    sink.reply = _smtp_reply
    with run_trace_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        parts = {"smtp_url": sink.url, "redis_url": own_redis.url, "log_format": "json"}
        with running_service(tmp_path / "data", **parts) as service:
            secrets = await run_journey(service, sink, own_redis)
            await wait_until(lambda: collector.spans_named("DELETE /api/v1/me"))
        _check_one_trace(collector)
        assert collector.spans_named("redis")
        sent = bytes(collector.request_bodies).lower()
        for secret in secrets:
            assert secret.lower().encode() not in sent
    routes = {span.name for span in collector.spans_named("GET ")}
    assert {"GET /r/{code}", "GET unknown", "GET /api/v1/codes/lookup"} <= routes


def _check_one_trace(collector: TraceCollector) -> None:
    first = collector.spans_named("POST /api/v1/auth/register")[0]
    spans = [span for span in collector.spans if span.trace_id == first.trace_id]
    by_id = {span.span_id: span for span in spans}
    names = {span.name for span in spans}
    assert {"job confirmation-mail", "smtp", "sql INSERT"} <= names
    for span in spans:
        assert span is first or span.parent_span_id in by_id
    mail = next(span for span in spans if span.name == "smtp")
    assert by_id[mail.parent_span_id].name == "job confirmation-mail"
    rejected = [span for span in collector.spans_named("smtp") if span.status.code == 2]
    assert {span.status.message for span in rejected} == {"MailRefused"}
    assert not any(span.events for span in collector.spans)
