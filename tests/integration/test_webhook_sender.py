"""Requests to receivers over real sockets: which hosts they reach, and what hostile ones cost."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from referral.adapters.webhooks.host_resolver import HostResolver
from referral.adapters.webhooks.networks import WebhookNetworks
from referral.adapters.webhooks.sender import HttpWebhookSender
from referral.core.ports.webhooks import ReceiverResponse, WebhookRequest
from tests.support.certificate import make_certificate
from tests.support.fakes.system import FakeClock
from tests.support.http_receiver import OK, Answer, answer_with, http_receiver
from tests.support.waiting import wait_until

ALLOWED_HOST, FORBIDDEN_HOST = "127.0.0.2", "127.0.0.1"
NAME = "receiver.example"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
BODY = b'{"id":"1"}'


@asynccontextmanager
async def webhook_sender(
    *answers: list[str],
    networks: tuple[str, ...] = (f"{ALLOWED_HOST}/32",),
    ssl_context: ssl.SSLContext | None = None,
    timeout_seconds: float = 15.0,
) -> AsyncIterator[HttpWebhookSender]:
    """Make a sender; each resolution of any name gets the next of the answers."""
    remaining, clock = list(answers), FakeClock()
    clock.advance(seconds=(NOW - clock.now()).total_seconds())
    sender = HttpWebhookSender(
        WebhookNetworks(networks),
        HostResolver((lambda _: remaining.pop(0)) if answers else None),
        clock,
        ssl_context=ssl_context,
        timeout_seconds=timeout_seconds,
    )
    try:
        yield sender
    finally:
        await sender.close()


async def post(sender: HttpWebhookSender, url: str) -> ReceiverResponse:
    """Send a request."""
    return await sender.send(WebhookRequest(url, {"webhook-id": "1"}, BODY))


async def test_request() -> None:
    """The body goes out unchanged, with the URL's host, and no cookie comes back."""
    answer = answer_with(b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\n\r\n")
    async with http_receiver(answer, host=ALLOWED_HOST) as receiver, webhook_sender() as sender:
        for _ in range(2):
            assert await post(sender, receiver.url() + "?a=%2F") == ReceiverResponse(204)
    for request in receiver.requests:
        assert request.line == "POST /hook?a=%2F HTTP/1.1"
        assert request.body == BODY
        assert request.headers["host"] == f"{ALLOWED_HOST}:{receiver.port}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("referral")
        assert request.headers["webhook-id"] == "1"
        assert "cookie" not in request.headers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "localhost",
        "localhost.",
        "0",
        "0.0.0.0",  # noqa: S104 - a target
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
    ],
)
async def test_forbidden_addresses_are_not_connected_to(host: str) -> None:
    """A canary on all addresses hears nothing, whatever spelling the URL has."""
    async with http_receiver(host="") as canary, webhook_sender() as sender:
        for scheme in ("http", "https"):
            response = await post(sender, f"{scheme}://{host}:{canary.port}/")
            assert response.status is None
            assert response.error
    assert canary.connections == 0


async def test_rebinding_reaches_nobody() -> None:
    """The address that was checked is connected to; the next attempt looks it up again."""
    async with (
        http_receiver(host=ALLOWED_HOST) as receiver,
        http_receiver(host=FORBIDDEN_HOST, port=receiver.port) as canary,
        webhook_sender([ALLOWED_HOST], [FORBIDDEN_HOST], ["::ffff:127.0.0.1"]) as sender,
    ):
        url = f"http://{NAME}:{receiver.port}/"
        responses = [await post(sender, url) for _ in range(3)]
    assert [response.status for response in responses] == [200, None, None]
    assert responses[1].error == "the host has no address in an allowed network"
    assert receiver.requests[0].headers["host"] == f"{NAME}:{receiver.port}"
    assert (len(receiver.requests), canary.connections) == (1, 0)


async def test_only_allowed_addresses_of_mixed_answers_are_used() -> None:
    """Forbidden addresses are left out, also where the allowed one does not answer."""
    mixed = [FORBIDDEN_HOST, ALLOWED_HOST, "::1", "169.254.169.254"]
    async with (
        http_receiver(host=ALLOWED_HOST) as receiver,
        http_receiver(host=FORBIDDEN_HOST, port=receiver.port) as canary,
        webhook_sender(mixed, [FORBIDDEN_HOST, "127.0.0.3"], networks=MIXED) as sender,
    ):
        url = f"http://{NAME}:{receiver.port}/"
        assert (await post(sender, url)).status == 200
        assert (await post(sender, url)).error == "the connection failed: Connection refused"
    assert canary.connections == 0


MIXED = (f"{ALLOWED_HOST}/32", "127.0.0.3/32")


async def test_next_address_is_tried() -> None:
    """An address that refuses the connection does not fail the attempt if the next accepts it."""
    async with http_receiver(host=ALLOWED_HOST) as receiver:
        answer = ["127.0.0.3", ALLOWED_HOST]
        async with webhook_sender(answer, networks=MIXED) as sender:
            assert (await post(sender, f"http://{NAME}:{receiver.port}/")).status == 200


async def test_http_is_for_named_networks_only() -> None:
    """No plain text leaves for the internet, whatever the name resolves to."""
    async with webhook_sender(["8.8.8.8"]) as sender:
        response = await post(sender, f"http://{NAME}/")
    assert response.error == "http:// works only in networks that the operator allows"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """The target of a redirect hears nothing, and the attempt fails."""
    async with http_receiver(host=ALLOWED_HOST) as target:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {target.url()}\r\nContent-Length: 0\r\n\r\n"
        moved = http_receiver(answer_with(head.encode()), host=ALLOWED_HOST)
        async with moved as receiver, webhook_sender() as sender:
            response = await post(sender, receiver.url())
    assert response.error == f"the response was {status}; redirects are not followed"
    assert target.connections == 0


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy is asked, which would look up the host by itself."""
    async with http_receiver(host=ALLOWED_HOST) as proxy, http_receiver(host=ALLOWED_HOST) as real:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        async with webhook_sender() as sender:
            assert (await post(sender, real.url())).status == 200
    assert (proxy.connections, len(real.requests)) == (0, 1)


async def test_unknown_hosts() -> None:
    """A host that is not found, or whose name servers hang, fails the attempt in words."""
    hanging = asyncio.Event()
    loop = asyncio.get_running_loop()

    def resolve(host: str) -> list[str]:
        if host == "hanging.example":
            asyncio.run_coroutine_threadsafe(hanging.wait(), loop).result()
        raise OSError("unknown")

    networks = WebhookNetworks(())
    sender = HttpWebhookSender(networks, HostResolver(resolve), FakeClock(), timeout_seconds=0.2)
    try:
        hung = await asyncio.gather(*(post(sender, "https://hanging.example/") for _ in range(99)))
        assert {response.error for response in hung} == {"no response in time"}
        assert (await post(sender, "https://a.example/")).error == "the host name was not found"
    finally:
        hanging.set()
        await sender.close()


async def test_resolutions_are_bounded() -> None:
    """A host has one resolution at a time, and all hosts together have a few."""
    loop, release = asyncio.get_running_loop(), asyncio.Event()
    running: list[str] = []

    def resolve(host: str) -> list[str]:
        running.append(host)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return ["8.8.8.8", "8.8.8.8", "fe80::1%eth0", "junk"]

    resolver = HostResolver(resolve)
    hosts = [f"{number % 100}.example" for number in range(400)]
    tasks = [asyncio.create_task(resolver.resolve(host)) for host in hosts]
    await wait_until(lambda: len(running) == 64)
    assert len(set(running)) == len(running) == 64
    release.set()
    found = await asyncio.gather(*tasks)
    assert len(running) == len(set(running)) == 100
    assert {tuple(map(str, addresses)) for addresses in found} == {("8.8.8.8", "fe80::1%eth0")}


async def test_idle_connections_that_were_closed() -> None:
    """A receiver that closes a connection after each response gets each event all the same."""
    async with (
        http_receiver(host=ALLOWED_HOST, closes=True) as receiver,
        webhook_sender() as sender,
    ):
        for _ in range(20):
            assert (await post(sender, receiver.url())).status == 200
    assert len(receiver.requests) == 20


async def test_connections_are_reused() -> None:
    """Successive events share a connection."""
    async with http_receiver(host=ALLOWED_HOST) as receiver, webhook_sender() as sender:
        for _ in range(20):
            assert (await post(sender, receiver.url())).status == 200
    assert (receiver.connections, len(receiver.requests)) == (1, 20)


@pytest.mark.parametrize(
    ("status", "header", "delay"),
    [
        (503, "120", timedelta(minutes=2)),
        (429, "Sun, 22 Nov 2026 00:01:00 GMT", timedelta(minutes=1)),
        (429, "Sun, 22 Nov 2020 00:00:00 GMT", timedelta(0)),
        (503, "9" * 4000, timedelta(seconds=999_999_999)),
        (503, "-1", None),
        (503, "soon", None),
        (503, "Sun, 22 Nov 99999 00:01:00 GMT", None),
        (500, "120", None),
    ],
)
async def test_retry_after(status: int, header: str, delay: timedelta | None) -> None:
    """The delay that an overloaded receiver demands, in seconds or as a date."""
    head = f"HTTP/1.1 {status} No\r\nRetry-After: {header}\r\nContent-Length: 4\r\n\r\nbusy"
    serving = http_receiver(answer_with(head.encode()), host=ALLOWED_HOST)
    async with serving as receiver, webhook_sender() as sender:
        response = await post(sender, receiver.url())
    assert response == ReceiverResponse(status, f"the response was {status}", "busy", delay)


async def endless_interim_responses(writer: asyncio.StreamWriter) -> None:
    """Answer with 1xx for ever."""
    await flood(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)


async def slow_interim_responses(writer: asyncio.StreamWriter) -> None:
    """Answer with one 1xx, and then with half a status line."""
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 20")
    await asyncio.Event().wait()


async def silence(_: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    """Answer with headers for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await flood(writer, b"X-Header: value\r\n" * 1000)


async def endless_header(writer: asyncio.StreamWriter) -> None:
    """Answer with one header for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
    await flood(writer, b"x" * 10_000)


async def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    writer.transport.abort()


async def flood(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write the same for ever."""
    while True:
        writer.write(data)
        await writer.drain()


INVALID = "the response is not valid HTTP"
CLOSED = "the connection was closed before a response"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (silence, "no response in time"),
        (slow_interim_responses, "no response in time"),
        (endless_interim_responses, "too many interim responses"),
        (endless_headers, INVALID),
        (endless_header, INVALID),
        (reset, CLOSED),
        (answer_with(b"junk\r\n\r\n"), INVALID),
        (answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), INVALID),
        (answer_with(b"\0" * 100_000), INVALID),
        (answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntoo long"), INVALID),
        (answer_with(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "the response was 101"),
    ],
)
async def test_hostile_receivers(answer: Answer, error: str) -> None:
    """An attempt ends in bounded time, and requests to another receiver go on meanwhile."""
    async with (
        http_receiver(answer, host=ALLOWED_HOST) as hostile,
        http_receiver(host=ALLOWED_HOST) as healthy,
        webhook_sender(timeout_seconds=1) as sender,
    ):
        attempt = asyncio.create_task(post(sender, hostile.url()))
        for _ in range(20):
            assert (await post(sender, healthy.url())).status == 200
        assert (await attempt).error == error


def body_of(data: bytes, length: int | None = None, *headers: str) -> bytes:
    """Return a response 500 with this body, and perhaps another length."""
    rows = [f"Content-Length: {len(data) if length is None else length}", *headers]
    return b"HTTP/1.1 500 No\r\n" + "\r\n".join(rows).encode() + b"\r\n\r\n" + data


BOMB = gzip.compress(b"0" * 10_000_000)


@pytest.mark.parametrize(
    ("response", "kept"),
    [
        (body_of(b"why"), "why"),
        (body_of(b""), ""),
        (body_of("ü".encode() * 600), "ü" * 512),
        (body_of(b"\xff\0"), "\ufffd\0"),
        (body_of(b"x" * 60_000), "x" * 1024),
        (body_of(b"x" * 500_000), "x" * 1024),
        (body_of(b"too short", 1000), "too short"),
        (body_of(BOMB, None, "Content-Encoding: gzip"), BOMB[:1024].decode(errors="replace")),
    ],
)
async def test_bodies_of_failures(response: bytes, kept: str) -> None:
    """The first KiB of a body is kept; it is not decompressed, and its length is not trusted."""
    serving = http_receiver(answer_with(response), host=ALLOWED_HOST)
    async with serving as receiver, webhook_sender() as sender:
        first = await post(sender, receiver.url())
        assert (first.status, first.body) == (500, kept)
        assert (await post(sender, receiver.url())).status == 500


async def test_endless_bodies_are_cut_off() -> None:
    """An endless body does not undo success; after a limit the socket is closed."""
    written = 0
    cut_off = asyncio.Event()

    async def endless_body(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
                written += 10_000
        except ConnectionError:
            cut_off.set()

    async with (
        http_receiver(endless_body, host=ALLOWED_HOST) as receiver,
        webhook_sender() as sender,
    ):
        assert await post(sender, receiver.url()) == ReceiverResponse(200)
        await cut_off.wait()
    assert written < 20_000_000  # the buffers of two sockets


async def test_a_body_that_stalls_does_not_undo_success() -> None:
    """An event counts as delivered when the headers have come."""

    async def stall(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await asyncio.Event().wait()

    async with http_receiver(stall, host=ALLOWED_HOST) as receiver, webhook_sender() as sender:
        assert await post(sender, receiver.url()) == ReceiverResponse(200)


def server_context(path: Path) -> ssl.SSLContext:
    """Return a context with a certificate of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(path))
    return context


async def test_certificates(tmp_path: Path) -> None:
    """The certificate must be that of the URL's host, not of the address, and be trusted."""
    path = tmp_path / "certificate.pem"
    context, trusting = server_context(path), ssl.create_default_context(cafile=path)
    loopback = ("127.0.0.0/8",)
    async with http_receiver(host=FORBIDDEN_HOST, ssl=context) as receiver:
        by_name = f"https://{NAME}:{receiver.port}/"
        async with webhook_sender(networks=loopback) as sender:
            untrusted = await post(sender, receiver.url("https"))
        async with webhook_sender(
            [FORBIDDEN_HOST], networks=loopback, ssl_context=trusting
        ) as sender:
            assert (await post(sender, receiver.url("https"))).status == 200
            mismatch = await post(sender, by_name)
    for response in (untrusted, mismatch):
        assert response.status is None
        assert (response.error or "").startswith("the certificate is invalid: ")
    assert len(receiver.requests) == 1


async def test_no_tls() -> None:
    """A receiver that does not speak TLS fails the attempt in words."""
    serving = http_receiver(answer_with(OK), host=ALLOWED_HOST)
    async with serving as receiver, webhook_sender(timeout_seconds=2) as sender:
        response = await post(sender, receiver.url("https"))
    assert response.error in {"the TLS handshake failed", "no response in time"}


async def test_at_most_128_requests_at_once() -> None:
    """Requests that wait for others do not use up their time limit."""
    release, waiting = asyncio.Event(), 0

    async def wait(writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 128:
            release.set()
        await release.wait()
        writer.write(OK)

    async with http_receiver(wait, host=ALLOWED_HOST) as receiver, webhook_sender() as sender:
        attempts = [asyncio.create_task(post(sender, receiver.url())) for _ in range(300)]
        await release.wait()
        assert receiver.connections == 128
        assert {(await attempt).status for attempt in attempts} == {200}
    assert receiver.connections <= 256
