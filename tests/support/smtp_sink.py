"""An SMTP server that records mails, and replies, rejects or hangs as configured."""

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

from tests.support.service_process import free_port


@dataclass(frozen=True)
class ReceivedMail:
    """A mail that was accepted with a 250."""

    to: str
    content: bytes
    received_at: float

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        return message_from_bytes(self.content, policy=SMTPUTF8)

    @property
    def id(self) -> str:
        """The Message-ID."""
        return str(self.message["Message-ID"])

    def part(self, subtype: str) -> str:
        """Return the text part of a subtype such as `plain` or `html`."""
        body = self.message.get_body((subtype,))
        assert body is not None
        return str(cast("EmailMessage", body).get_content())


@dataclass
class SmtpSink:
    """The server; `reply` returns the response to the data of each mail, or None to hang."""

    port: int
    reply: Callable[[ReceivedMail], str | None] = lambda _: "250 OK"
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    credentials: tuple[str, str] | None = None
    smtputf8: bool = True
    received: list[ReceivedMail] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    _server: Controller | None = None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"smtp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        options: dict[str, Any] = {"enable_SMTPUTF8": self.smtputf8}
        options["ssl_context" if self.implicit_tls else "tls_context"] = self.tls
        if self.credentials:
            options |= {"authenticator": self._check, "auth_required": True}
            options["auth_require_tls"] = not self.implicit_tls
        self._server = Controller(self, hostname="127.0.0.1", port=self.port, **options)
        self._server.start()

    def stop(self) -> None:
        """Stop listening, and drop all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def mails_to(self, email: str) -> list[ReceivedMail]:
        """Return the mails to a recipient."""
        return [mail for mail in self.received if mail.to == email]

    def count_by_message_id(self) -> Counter[str]:
        """Count the mails by Message-ID."""
        return Counter(mail.id for mail in self.received)

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _: object, session: Session, envelope: Envelope
    ) -> str:
        """Record a mail if the reply accepts it."""
        self.connections.add(session.peer)
        content = cast("bytes", envelope.content)
        mail = ReceivedMail(envelope.rcpt_tos[0], content, time.time())
        reply = self.reply(mail)
        if reply is None:
            return await _hang()
        if reply.startswith("250"):
            self.received.append(mail)
        return reply

    def _check(self, *arguments: Any) -> AuthResult:
        expected = tuple(part.encode() for part in self.credentials or ())
        return AuthResult(success=(arguments[4].login, arguments[4].password) == expected)


class BlackHole:
    """A port that accepts connections and never responds."""

    def __init__(self, port: int) -> None:
        """Listen, and leave the connections in the backlog."""
        self.port = port
        self._socket = socket.create_server(("127.0.0.1", port), backlog=512)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@contextmanager
def run_smtp_sink() -> Iterator[SmtpSink]:
    """Run a sink until the block ends."""
    sink = SmtpSink(free_port())
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()


async def _hang() -> str:
    await asyncio.Event().wait()
    return ""
