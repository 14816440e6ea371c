"""Malformed, slow and oversized HTTP requests are rejected in time at a low cost."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Response, post

from referral.web.middleware.request_guard import MAX_BODY_BYTES, RequestGuard
from tests.support.health_polling import HealthPoller, poll_health
from tests.support.process_stats import find_worker, memory_usage
from tests.support.service_process import Service, running_service
from tests.support.waiting import measure_thread_time, wait_until

TIMEOUT_SECONDS = 10.0
"""The service's time limit for the headers, and for the body."""

MARGIN_SECONDS = 4.0
SLOW_CONNECTIONS = 500
MAX_GROWTH_MB = 50
MAX_HEALTH_SECONDS = 0.1

HOST = b"Host: example.com\r\n"
CLOSE = HOST + b"Connection: close\r\n"
JSON = CLOSE + b"Content-Type: application/json\r\n"
REGISTER_LINE = b"POST /api/v1/auth/register HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LIVE_LINE = b"GET /health/live HTTP/1.1\r\n"
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"
MANY_HEADERS = b"".join(b"X-%d: a\r\n" % number for number in range(10_000))


def _get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + CLOSE + b"\r\n"


def _host(*hosts: bytes) -> bytes:
    return LIVE_LINE + b"".join(b"Host: " + host + b"\r\n" for host in hosts) + b"\r\n"


def _post(headers: bytes, body: bytes = b"") -> bytes:
    return REGISTER_LINE + JSON + headers + b"\r\n" + body


REQUESTS: dict[str, tuple[bytes, int]] = {
    "valid request": (_get(b"/health/live"), 200),
    "HTTP/1.0 without a host": (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
    "no host": (LIVE_LINE + b"Connection: close\r\n\r\n", 400),
    "two hosts": (_host(b"a", b"b"), 400),
    "empty host": (_host(b""), 400),
    "host with a space": (_host(b"a b"), 400),
    "host with a user": (_host(b"ann@a"), 400),
    "host with a path": (_host(b"a/b"), 400),
    "host with a comma": (_host(b"a,b"), 400),
    "host with mark-up": (_host(b"<a>"), 400),
    "host with an empty label": (_host(b"a..b"), 400),
    "non-ASCII host": (_host(b"\xff\xfe"), 400),
    "truncated IPv6 host": (_host(b"[::1"), 400),
    "host of 256 bytes": (_host(b"a." * 128), 400),
    "host with a port of letters": (_host(b"a:http"), 400),
    "host with a port too high": (_host(b"a:65536"), 400),
    "absolute form": (_get(b"http://example.com/health/live"), 200),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "TRACE": (b"TRACE /health/live HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "OPTIONS of everything": (b"OPTIONS * HTTP/1.1\r\n" + CLOSE + b"\r\n", 404),
    "OPTIONS": (b"OPTIONS /api/v1/me HTTP/1.1\r\n" + CLOSE + b"\r\n", 204),
    "HEAD": (b"HEAD /health/live HTTP/1.1\r\n" + CLOSE + b"\r\n", 200),
    "HEAD where there is no GET": (
        b"HEAD /api/v1/auth/register HTTP/1.1\r\n" + CLOSE + b"\r\n",
        405,
    ),
    "an unknown method": (b"BREW /health/live HTTP/1.1\r\n" + CLOSE + b"\r\n", 405),
    "an invalid method": (b"G(T /health/live HTTP/1.1\r\n" + CLOSE + b"\r\n", 400),
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", 400),
    "HTTP/3 in text": (b"GET /health/live HTTP/3.0\r\n" + CLOSE + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
    "a long URL": (_get(b"/" + b"a" * 100_000), 431),
    "a long header": (LIVE_LINE + CLOSE + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "10,000 headers": (LIVE_LINE + CLOSE + MANY_HEADERS + b"\r\n", 431),
    "a folded header": (LIVE_LINE + CLOSE + b"X-A: b\r\n c\r\n\r\n", 400),
    "NUL in a header": (LIVE_LINE + CLOSE + b"X-A: b\0c\r\n\r\n", 400),
    "a lone CR in a header": (LIVE_LINE + CLOSE + b"X-A: b\rc\r\n\r\n", 400),
    "a space before the colon": (LIVE_LINE + CLOSE + b"X-A : b\r\n\r\n", 400),
    "a path of 1,025 characters": (_get(b"/" + b"a" * 1_024), 414),
    "a non-ASCII path": (_get(b"/r/\xff"), 400),
    "a space in the path": (_get(b"/r/a b"), 400),
    "NUL in the path": (_get(b"/r/%00"), 302),
    "a truncated escape": (_get(b"/r/%"), 302),
    "bad UTF-8 in the path": (_get(b"/r/%ff%fe"), 302),
    "an overlong slash": (_get(b"/r/%c0%af"), 302),
    "path traversal": (_get(b"/docs/files/../../../etc/passwd"), 404),
    "escaped path traversal": (_get(b"/docs/files/..%2f..%2f..%2fetc%2fpasswd"), 404),
    "twice escaped path traversal": (_get(b"/docs/files/%252e%252e%252fetc%252fpasswd"), 404),
    "bad UTF-8 in the query": (_get(b"/api/v1/codes/lookup?email=%ff"), 422),
    "5,000 parameters": (_get(b"/api/v1/codes/lookup?" + b"a=1&" * 5_000), 414),
    "a non-ASCII bearer token": (
        b"GET /api/v1/me HTTP/1.1\r\n" + CLOSE + b"Authorization: Bearer \xff\r\n\r\n",
        401,
    ),
    "two lengths": (_post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}"), 400),
    "a length with a sign": (_post(b"Content-Length: +2\r\n", b"{}"), 400),
    "a negative length": (_post(b"Content-Length: -2\r\n", b"{}"), 400),
    "a length beyond 64 bits": (_post(b"Content-Length: " + b"9" * 30 + b"\r\n", b"{}"), 400),
    "a length of a gigabyte": (_post(b"Content-Length: 1000000000\r\n", b"{}"), 413),
    "Expect: 100-continue": (
        _post(b"Expect: 100-continue\r\nContent-Length: 1000000\r\n"),
        413,
    ),
    "a long body": (_post(b"Content-Length: 70000\r\n", b" " * 70_000), 413),
    "a long body in chunks": (_post(CHUNKED, CHUNK * 17 + b"0\r\n\r\n"), 413),
    "a body in chunks of a byte": (_post(CHUNKED, b"1\r\n \r\n" * 60_000 + b"0\r\n\r\n"), 413),
    "1,024 chunks": (_post(CHUNKED, b"2\r\n{}\r\n" * 1_024 + b"0\r\n\r\n"), 400),
    "1,025 chunks": (_post(CHUNKED, b"2\r\n{}\r\n" * 1_025 + b"0\r\n\r\n"), 413),
    "a chunk with an invalid size": (_post(CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk beyond 64 bits": (_post(CHUNKED, b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n"), 400),
    "a long chunk extension": (
        _post(CHUNKED, b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"),
        400,
    ),
    "10,000 trailers": (_post(CHUNKED, b"2\r\n{}\r\n0\r\n" + MANY_HEADERS + b"\r\n"), 400),
    "an unknown transfer encoding": (_post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 400),
    "chunked with a space": (_post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "chunked, then not": (_post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), 400),
    "chunked in HTTP/1.0": (
        b"POST /api/v1/auth/register HTTP/1.0\r\n" + JSON + CHUNKED + b"\r\n0\r\n\r\n",
        400,
    ),
}
"""The bytes sent, and the status of the single response."""

SMUGGLED = b"GET /health/ready HTTP/1.1\r\n" + HOST + b"\r\n"
SMUGGLING = {
    "CL.TE": REGISTER_LINE
    + HOST
    + b"Content-Length: 6\r\n"
    + CHUNKED
    + b"\r\n0\r\n\r\n"
    + SMUGGLED,
    "TE.CL": REGISTER_LINE + HOST + CHUNKED + b"Content-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "TE.TE": REGISTER_LINE + HOST + CHUNKED + b"Transfer-Encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "CL.CL": REGISTER_LINE + HOST + b"Content-Length: 0\r\nContent-Length: 99\r\n\r\n" + SMUGGLED,
    "TE and a tab": REGISTER_LINE
    + HOST
    + b"Transfer-Encoding:\tchunked\t, x\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "line feeds alone": REGISTER_LINE
    + HOST
    + b"X: y\nTransfer-Encoding : chunked\r\n\r\n"
    + SMUGGLED,
}
"""Requests with two lengths, of which a proxy may have used the other one."""


@pytest.fixture(scope="module")
async def service(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """A service in its own process, with its real HTTP server."""
    folder = tmp_path_factory.mktemp("wire") / "data"
    settings = {"database_url": database_url, "signing_key_file": str(key_file), "worker": "off"}
    with running_service(folder, **settings) as service:
        yield service


async def exchange(service: Service, sent: bytes, seconds: float = 6 * TIMEOUT_SECONDS) -> bytes:
    """Send bytes; return everything received until the service closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(service.url).port)
    received = b""
    try:
        with suppress(ConnectionError):  # the service may close before all is sent
            writer.write(sent)
            await writer.drain()
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while part := await reader.read(65_536):
                    received += part
    finally:
        writer.close()
    return received


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the responses."""
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


async def test_each_request_gets_one_response(service: Service) -> None:
    """No response is 5xx, none follows, and the connection is closed."""
    received = await asyncio.gather(*(exchange(service, sent) for sent, _ in REQUESTS.values()))
    found = {name: statuses(response) for name, response in zip(REQUESTS, received, strict=True)}
    assert found == {name: [status] for name, (_, status) in REQUESTS.items()}


@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING)
async def test_request_smuggling_is_rejected(service: Service, sent: bytes) -> None:
    """A request with two lengths is 400, and the bytes after it are not parsed."""
    assert statuses(await exchange(service, sent)) == [400]


async def test_pipelined_requests_are_answered(service: Service) -> None:
    """Fifty requests sent at once on one connection get fifty responses."""
    sent = (LIVE_LINE + HOST + b"\r\n") * 49 + _get(b"/health/live")
    assert statuses(await exchange(service, sent)) == [200] * 50


async def test_http_2_is_not_supported(service: Service) -> None:
    """HTTP/2 has other limits, and the proxy in front does not need it."""
    assert statuses(await exchange(service, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))) == []


@pytest.mark.parametrize(("size", "status"), [(64, 422), (1, 413)])
async def test_body_in_small_segments_is_accepted(size: int, status: int) -> None:
    """A body of maximum size in segments of 64 bytes is read; single bytes are rejected."""
    body = b'{"email": "' + b"a" * (MAX_BODY_BYTES - 13) + b'"}'
    segments = [body[start : start + size] for start in range(0, len(body), size)]
    received, sent = 0, list[Any]()

    async def receive() -> Any:
        nonlocal received
        received += 1
        more = received < len(segments)
        return {"type": "http.request", "body": segments[received - 1], "more_body": more}

    async def send(message: Any) -> None:
        sent.append(message)

    @post("/")
    async def read_body(request: Request[Any, Any, Any]) -> Response[str]:
        assert await request.body() == body
        return Response("", status_code=422)

    app = RequestGuard(Litestar([read_body], request_max_body_size=MAX_BODY_BYTES), "http://test")
    scope: Any = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "client": ("192.0.2.1", 1),
        "server": ("192.0.2.2", 80),
        "headers": [(b"host", b"test")],
        "state": {},
        "extensions": {},
    }
    await app(scope, receive, send)
    assert sent[0]["status"] == status
    assert received == min(len(segments), 1_025)


async def test_slow_connections_are_closed_in_time(service: Service) -> None:
    """500 slow connections are closed, with health within 100 ms and less than 50 MB more."""
    process = find_worker(service)
    before = memory_usage(process).rss_mb
    async with measure_thread_time() as elapsed:
        slow = asyncio.gather(
            *(
                open_slow_connection(service, body=number % 2 == 0)
                for number in range(SLOW_CONNECTIONS)
            )
        )
        with poll_health(service) as pulse:
            await wait_until(lambda: len(pulse.samples) > 100)
            highest = memory_usage(process).rss_mb
            responses = await slow
    assert elapsed.seconds < TIMEOUT_SECONDS + MARGIN_SECONDS
    assert [statuses(response) for response in responses] == [[408], []] * (SLOW_CONNECTIONS // 2)
    assert p95_stall(pulse) < MAX_HEALTH_SECONDS
    assert highest - before < MAX_GROWTH_MB


async def test_long_headers_on_many_connections_take_little_memory(service: Service) -> None:
    """Each of 500 connections fills the maximum size of a header and stops."""
    process = find_worker(service)
    before = memory_usage(process).rss_mb
    exchanges = asyncio.gather(
        *(exchange(service, LIVE_LINE + b"X-A: " + b"a" * 65_000) for _ in range(SLOW_CONNECTIONS))
    )
    with poll_health(service) as pulse:
        await wait_until(lambda: len(pulse.samples) > 50)
        assert memory_usage(process).rss_mb - before < MAX_GROWTH_MB
        assert {tuple(statuses(response)) for response in await exchanges} <= {(431,), ()}
    assert p95_stall(pulse) < MAX_HEALTH_SECONDS


def p95_stall(pulse: HealthPoller) -> float:
    """Return the 95th percentile of the stalls of `/health/live`, in seconds."""
    return sorted(beat.delay_seconds for beat in pulse.samples)[len(pulse.samples) * 95 // 100]


async def open_slow_connection(service: Service, *, body: bool) -> bytes:
    """Send a byte a second until the service closes the connection."""
    head = _post(b"Content-Length: 1000\r\n") if body else LIVE_LINE + HOST
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(service.url).port)
    response = asyncio.create_task(reader.read())
    with suppress(ConnectionError):
        writer.write(head)
        while not (await asyncio.wait({response}, timeout=1))[0]:
            writer.write(b" " if body else b"X-A: b\r\n")
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        return await response
    return b""
