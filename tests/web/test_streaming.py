"""Responses that are sent as they are made."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from litestar.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from referral.core.errors import TooManyRequests, Unavailable
from referral.web import streaming
from referral.web.problems import NewerHttpRequired
from referral.web.streaming import MAX_STREAMS_PER_CALLER, StreamedResponse, StreamLimits

GET: dict[str, Any] = {"http_version": "1.1"}


class Connection:
    """The server's side of a request: what was sent, and when the client goes away."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.is_gone = asyncio.Event()
        self.stalls_at: bytes | None = None

    async def receive(self) -> dict[str, Any]:
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.stalls_at is not None and message.get("body") == self.stalls_at:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def run(self, response: StreamedResponse, **state: bool) -> None:
        scope = cast("Scope", GET | {"state": state})
        await response(scope, cast("Receive", self.receive), cast("Send", self.send))

    @property
    def body(self) -> bytes:
        """What the client got after the head."""
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def is_complete(self) -> bool:
        """Whether the end of the body was sent."""
        return bool(self.sent) and not self.sent[-1].get("more_body", True)


class Chunks:
    """A generator of chunks that notes its end."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self._chunks = chunks
        self.made = 0
        self.is_closed = False

    async def generate(self) -> AsyncGenerator[bytes, None]:
        try:
            for chunk in self._chunks:
                self.made += 1
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.is_closed = True


@pytest.fixture
def connection() -> Connection:
    """A connection of a client that reads."""
    return Connection()


async def test_chunks_are_sent_in_order(connection: Connection) -> None:
    """Without a length, and with the end of the body."""
    await connection.run(StreamedResponse(Chunks(b"a", b"b").generate(), media_type="text/csv"))
    assert connection.sent[0]["status"] == 200
    assert dict(connection.sent[0]["headers"]) == {b"content-type": b"text/csv; charset=utf-8"}
    assert connection.body == b"ab"
    assert connection.is_complete


async def test_head_makes_no_chunk(connection: Connection) -> None:
    """It has the same head."""
    chunks = Chunks(b"a")
    await connection.run(StreamedResponse(chunks.generate()), is_head=True)
    assert (connection.body, connection.is_complete, chunks.made) == (b"", True, 0)


@pytest.mark.parametrize("version", ["1", "1.0"])
async def test_http_1_0_is_refused(connection: Connection, version: str) -> None:
    """Such a client takes the end of the connection for the end of the body."""
    scope = cast("Scope", {"http_version": version, "state": {}})
    response = StreamedResponse(Chunks(b"a").generate())
    with pytest.raises(NewerHttpRequired):
        await response(scope, cast("Receive", connection.receive), cast("Send", connection.send))
    assert connection.sent == []


async def test_error_of_the_first_chunk_is_a_response(connection: Connection) -> None:
    """Nothing was sent, so that the handler of errors can respond."""
    with pytest.raises(Unavailable):
        await connection.run(StreamedResponse(Chunks(Unavailable()).generate()))
    assert connection.sent == []


async def test_body_that_fails_later_has_no_end(connection: Connection) -> None:
    """The client must not take it for complete; the log says why."""
    chunks = Chunks(b"a", Unavailable())
    with capture_logs() as logs:
        await connection.run(StreamedResponse(chunks.generate()))
    assert connection.body == b"a"
    assert not connection.is_complete
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("response not completed", "warning")
    ]


async def test_stalled_client_is_given_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator is closed, with what it holds."""
    monkeypatch.setattr(streaming, "STALL_SECONDS", 0.001)
    chunks = Chunks(b"a", b"b", b"c")
    connection.stalls_at = b"b"
    with capture_logs() as logs:
        await connection.run(StreamedResponse(chunks.generate()))
    assert (connection.body, connection.is_complete) == (b"a", False)
    assert (chunks.made, chunks.is_closed) == (2, True)
    assert "TimeoutError" in logs[0]["cause"]


async def test_nothing_is_made_for_a_client_that_left(connection: Connection) -> None:
    """Servers drop what is sent to it, without an error."""

    async def generate() -> AsyncGenerator[bytes, None]:
        for number in range(1000):
            yield str(number).encode()
            connection.is_gone.set()
            await asyncio.sleep(0)

    await connection.run(StreamedResponse(generate()))
    assert len(connection.sent) < 10


def test_streams_of_a_caller_are_limited() -> None:
    """Those of others are not, and an ended one makes room."""
    limits = StreamLimits()
    for _ in range(2):
        with limits.stream("ann"), limits.stream("ann"), limits.stream("bob"):
            assert MAX_STREAMS_PER_CALLER == 2
            with pytest.raises(TooManyRequests), limits.stream("ann"):
                pass
