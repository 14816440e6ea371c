"""A stub of the EmailHunter and Clearbit APIs on a real socket, with fault injection.

The first word of the local part of an e-mail address selects the response:
`disposable.ann@example.com` is disposable, `429.ann@example.com` exceeds the quota,
`hang.ann@example.com` gets no response, and any other address is valid. `PUT /stub/429` forces
that response for all requests, `DELETE /stub` resets it, `GET /stub` lists the requests.
"""

import argparse
import asyncio
import gzip
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

API_KEY = "a-key-that-stands-out"
OVERSIZED_BYTES = 100 * 1024 * 1024
SLOW_SECONDS = 3.0
VERIFIER_STATUSES = (
    "valid",
    "invalid",
    "accept_all",
    "webmail",
    "disposable",
    "unknown",
    "blocked",
)
ERROR_MESSAGES = {
    "202": "The verification is still in progress.",
    "222": "The remote SMTP server answered unexpectedly.",
    "400": "The parameter is missing.",
    "401": "No valid API key was provided.",
    "403": "You have reached the rate limit.",
    "404": "The requested resource does not exist.",
    "422": "The request cannot be processed.",
    "429": "You have reached your usage limit.",
    "451": "The person asked us not to process their data.",
    "500": "Something went wrong.",
    "502": "Something went wrong.",
    "503": "Something went wrong.",
}
MALFORMED_BODIES: dict[str, bytes] = {
    "garbage": b"\x00\xff<html>{{{",
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"1e999",
    "no-data": b'{"meta": {}}',
    "bare-data": b'{"data": "valid"}',
    "wrong-status": b'{"data": {"status": ["invalid"]}}',
    "new-status": b'{"data": {"status": "perhaps"}}',
    "deep": b"[" * 50_000 + b"]" * 50_000,
    "surrogate": b'{"data": {"status": "invalid\\ud800"}}',
    "latin": '{"data": {"status": "invalid", "é": 1}}'.encode("latin-1"),
}
"""Bodies of responses with status 200 that break the documented format."""

PERSON = {
    "name": {"fullName": "Ann Example", "givenName": "Ann", "familyName": "Example"},
    "employment": {"name": "Example Ltd", "domain": "example.com", "title": "Head of Examples"},
    "geo": {"country": "Finland", "countryCode": "FI"},
    "avatar": "https://images.example.com/ann.png",
}
COMPANY = {"name": "Example", "domain": "example.com", "geo": {"country": "Sweden"}}
HOSTILE_PERSON = {
    "name": {"fullName": "  An\x00n\ud800 \u202eExample\r\nBcc: x " + "n" * 5000},
    "employment": {"name": ["Example"], "domain": "not a domain", "title": 7},
    "geo": "Finland",
    "avatar": "javascript:alert(1)",
}
"""Values that a third party could send and that must not be stored."""


@dataclass(frozen=True)
class RecordedRequest:
    """A request, with the time in seconds since the epoch."""

    path: str
    email: str
    key: str
    received_at: float


@dataclass
class HunterStub:
    """The server.

    `fault` forces a response for all requests, `requests` records those to the APIs, and
    `on_request` is called before each response.
    """

    port: int = 0
    host: str = "127.0.0.1"
    key: str = API_KEY
    fault: str | None = None
    person: dict[str, Any] = field(default_factory=lambda: dict(PERSON))
    verifications_used: int = 8
    requests: list[RecordedRequest] = field(default_factory=list)
    client_addresses: set[object] = field(default_factory=set)
    bytes_sent: int = 0
    on_request: Callable[[], Awaitable[None]] | None = None
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.host}:{self.port}"

    def requests_to(self, path: str) -> list[RecordedRequest]:
        """Return the requests to a path."""
        return [one for one in self.requests if one.path.endswith(path)]

    async def start(self) -> None:
        """Listen, after building the slow responses."""
        await asyncio.to_thread(_gzip_bomb)
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and drop all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._respond(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            with suppress(OSError, RuntimeError):
                writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, *_ = head.split()
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path.startswith("/stub"):
            self._control(method, url.path, writer)
            return True
        bearer = re.search(r"(?im)^authorization: bearer (\S+)", head)
        key = bearer[1] if bearer else query.get("api_key", "")
        email = query.get("email", "")
        self.client_addresses.add(writer.get_extra_info("peername"))
        self.requests.append(RecordedRequest(url.path, email, key, time.time()))
        if self.on_request is not None:
            await self.on_request()
        keyword = self.fault or _keyword(email)
        if keyword in OVERSIZED_RESPONSES:
            await self._send_oversized(writer, keyword)
            return False
        if keyword in FAULTS:
            await FAULTS[keyword](writer)
            return False
        message = ERROR_MESSAGES.get(keyword)
        if message is None and key != self.key:
            keyword, message = "401", ERROR_MESSAGES["401"]
        if message is not None:
            errors = [{"id": "stub", "code": int(keyword), "details": f"{message} {email}"}]
            _send(writer, int(keyword), json.dumps({"errors": errors}).encode())
        else:
            _send(writer, *self._content(url.path, email, keyword, clearbit=bearer is not None))
        await writer.drain()
        return True

    def _content(self, path: str, email: str, keyword: str, *, clearbit: bool) -> tuple[int, bytes]:
        if keyword in MALFORMED_BODIES:
            return 200, MALFORMED_BODIES[keyword]
        if path == "/v2/account":
            return 200, json.dumps({"data": self._account()}).encode()
        if not email:
            return 400, json.dumps({"errors": [{"code": 400}]}).encode()
        if path == "/v2/email-verifier":
            found: dict[str, Any] = {"status": keyword if keyword in VERIFIER_STATUSES else "valid"}
            return 200, json.dumps({"data": found | {"email": email, "score": 50}}).encode()
        if path == "/v2/combined/find":
            person = HOSTILE_PERSON if keyword == "nasty" else self.person
            found = {"person": person | {"email": email}, "company": COMPANY}
            return 200, json.dumps(found if clearbit else {"data": found, "meta": {}}).encode()
        return 404, b"{}"

    def _account(self) -> dict[str, Any]:
        verifications = {"used": self.verifications_used, "available": 50}
        return {"plan_name": "Free", "requests": {"verifications": verifications}}

    async def _send_oversized(self, writer: asyncio.StreamWriter, kind: str) -> None:
        header, encode = OVERSIZED_RESPONSES[kind]
        writer.write(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
        chunk = b" " * (1024 * 1024)
        while self.bytes_sent < OVERSIZED_BYTES:
            writer.write(encode(chunk))
            await writer.drain()
            self.bytes_sent += len(chunk)

    def _control(self, method: str, path: str, writer: asyncio.StreamWriter) -> None:
        if method == "PUT":
            self.fault = path.removeprefix("/stub/")
        if method == "DELETE":
            self.fault = None
            self.requests.clear()
        state = {"fault": self.fault, "requests": [asdict(one) for one in self.requests]}
        _send(writer, 200, json.dumps(state).encode())


@asynccontextmanager
async def hunter_stub(**options: Any) -> AsyncIterator[HunterStub]:
    """Run the server until the block ends."""
    stub = HunterStub(**options)
    await stub.start()
    try:
        yield stub
    finally:
        await stub.stop()


def _keyword(email: str) -> str:
    return re.split(r"[.+@]", email)[0].lower()


def _send(writer: asyncio.StreamWriter, status: int, body: bytes, *headers: str) -> None:
    lines = [f"HTTP/1.1 {status} Stub", "Content-Type: application/json", *headers]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    writer.write(head.encode() + body)


def _invalid_result() -> bytes:
    return json.dumps({"data": {"status": "invalid"}}).encode()


async def _slow(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(SLOW_SECONDS)
    _send(writer, 200, json.dumps({"data": {"status": "valid"}}).encode(), "Connection: close")
    await writer.drain()


async def _hang(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _bomb(writer: asyncio.StreamWriter) -> None:
    _send(writer, 200, _gzip_bomb(), "Content-Encoding: gzip")
    await writer.drain()


async def _redirect(writer: asyncio.StreamWriter) -> None:
    _send(writer, 302, b"", "Location: /v2/email-verifier?email=invalid@example.com", CLOSE)
    await writer.drain()


async def _reset(writer: asyncio.StreamWriter) -> None:
    # With a linger time of zero, closing the socket sends a RST.
    raw_socket = writer.get_extra_info("socket")
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _truncate(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + _invalid_result())
    await writer.drain()


async def _no_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 stub ESMTP\r\n" * 3)
    await writer.drain()


async def _headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"X-Much: " + b"x" * 1_000_000 + b"\r\n\r\n")
    await writer.drain()


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(_invalid_result() + b" " * OVERSIZED_BYTES, 9)


CLOSE = "Connection: close"
FAULTS: dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "slow": _slow,
    "hang": _hang,
    "trickle": _trickle,
    "bomb": _bomb,
    "redirect": _redirect,
    "reset": _reset,
    "cut": _truncate,
    "no-http": _no_http,
    "headers": _headers,
}
"""Faults of the connection, which ends after them."""

OVERSIZED_RESPONSES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "huge": (f"Content-Length: {OVERSIZED_BYTES}", lambda chunk: chunk),
    "endless": ("Transfer-Encoding: chunked", lambda chunk: b"%x\r\n%b\r\n" % (len(chunk), chunk)),
}
"""Responses of 100 MB; `bytes_sent` counts how much of them was sent."""


async def _run(options: argparse.Namespace) -> None:
    async with hunter_stub(port=options.port, key=options.key, fault=options.fault) as stub:
        print(f"{stub.url} with the key {stub.key}", flush=True)  # noqa: T201 - for the operator
        await asyncio.Event().wait()


def main() -> None:
    """Serve until Ctrl-C."""
    keywords = [
        *VERIFIER_STATUSES,
        *ERROR_MESSAGES,
        *MALFORMED_BODIES,
        *FAULTS,
        *OVERSIZED_RESPONSES,
    ]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=API_KEY)
    parser.add_argument("--fault", choices=keywords, help="the response to all requests")
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
