"""A collector of traces over OTLP/HTTP."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class TraceCollector:
    """The spans received so far, and the raw bodies."""

    url: str
    spans: list[Span] = field(default_factory=list)
    request_bodies: bytearray = field(default_factory=bytearray)

    def receive(self, body: bytes) -> None:
        """Parse one request of an exporter."""
        self.request_bodies += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def spans_named(self, name: str) -> list[Span]:
        """Return the spans whose name has this prefix."""
        return [span for span in self.spans if span.name.startswith(name)]


@contextmanager
def run_trace_collector() -> Iterator[TraceCollector]:
    """Run a collector until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_gzipped = self.headers.get("Content-Encoding") == "gzip"
            collector.receive(gzip.decompress(body) if is_gzipped else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Suppress the access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = TraceCollector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()
