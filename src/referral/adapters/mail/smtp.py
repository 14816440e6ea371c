"""Delivery of mails by SMTP, over a pool of connections."""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib.errors import (
    SMTPDataError,
    SMTPException,
    SMTPNotSupported,
    SMTPRecipientRefused,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
)
from opentelemetry.trace import SpanKind

from referral.adapters.mail.mime import MimeMessage
from referral.adapters.mail.renderer import MailRenderer
from referral.adapters.observability.tracing import span
from referral.core.entities.mail import Mail
from referral.core.errors import MailRefused, Unavailable
from referral.core.ports.delivery import Mailer

REPLY_TIMEOUT_SECONDS = 20.0
"""The time limit of each reply of the server."""

MAX_IDLE_SECONDS = 15.0
MAX_MAILS_PER_CONNECTION = 200
MAX_CONNECTIONS = 10
"""SMTP servers refuse clients with too many connections."""

MIN_PERMANENT_REPLY_CODE = 500

DEFAULT_PORTS = {"smtp": 587, "smtps": 465}


@dataclass
class SmtpConnection:
    """A connection, the time of its last mail (event loop's clock) and its number of mails."""

    client: aiosmtplib.SMTP
    last_used_at: float = 0.0
    mails_sent: int = 0

    def is_reusable(self, now: float) -> bool:
        """Return whether the connection may send another mail."""
        return (
            now - self.last_used_at < MAX_IDLE_SECONDS
            and self.mails_sent < MAX_MAILS_PER_CONNECTION
            and self.client.is_connected
        )


class SmtpMailer:
    """Sends mails: `smtp://` uses STARTTLS if the server offers it, `smtps://` uses TLS."""

    name = "smtp"

    def __init__(self, url: str, mail_renderer: MailRenderer) -> None:
        """`url` may contain a user name and a password."""
        self._url = urlsplit(url)
        self._mail_renderer = mail_renderer
        self._idle: list[SmtpConnection] = []
        self._permits = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(self, mail: Mail) -> None:
        """Send a mail; raises `MailRefused` or `Unavailable` with the reply codes.

        The texts of replies are dropped, since they may contain the recipient's address.
        """
        message = self._mail_renderer.render(mail)
        try:
            await self._deliver(message)
        except (SMTPException, OSError, ValueError) as error:
            failure = _mail_error(error)
        else:
            return
        raise failure  # outside the handler, so that no traceback contains the server's text

    async def check(self) -> str:
        """Connect and log in; raises `Unavailable` with the cause."""
        try:
            connection = await self._connect()
        except (SMTPException, OSError, ValueError) as error:
            failure = f"does not answer ({type(error).__name__}{_reply_codes(error)})"
        else:
            await _quit(connection)
            return "ok"
        raise Unavailable(failure)

    async def close(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection) for connection in idle))

    async def _deliver(self, message: MimeMessage) -> None:
        async with self._permits:
            connection = await self._acquire_connection()
            try:
                await self._send_over(connection, message)
            except SMTPServerDisconnected:
                if not connection.mails_sent:
                    raise
                # The server had closed the idle connection.
                await self._send_over(await self._connect(), message)

    async def _send_over(self, connection: SmtpConnection, message: MimeMessage) -> None:
        try:
            await connection.client.send_message(
                message, sender=message.sender, recipients=message.recipient
            )
        except BaseException:
            connection.client.close()
            raise
        connection.mails_sent += 1
        connection.last_used_at = asyncio.get_running_loop().time()
        self._idle.append(connection)

    async def _acquire_connection(self) -> SmtpConnection:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable(now):
                return connection
            connection.client.close()
        return await self._connect()

    async def _connect(self) -> SmtpConnection:
        url = self._url
        client = aiosmtplib.SMTP(
            hostname=url.hostname,
            port=url.port or DEFAULT_PORTS[url.scheme],
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            use_tls=url.scheme == "smtps",
            timeout=REPLY_TIMEOUT_SECONDS,
        )
        try:
            await client.connect()
        except BaseException:
            client.close()
            raise
        return SmtpConnection(client)


class TracedMailer:
    """A mailer that records each mail as a span."""

    def __init__(self, mailer: Mailer, url: str) -> None:
        """`url` names the SMTP server."""
        self._mailer = mailer
        self._attributes = {"server.address": urlsplit(url).hostname or ""}

    async def send(self, mail: Mail) -> None:
        """Send the mail within a span."""
        with span("smtp", SpanKind.CLIENT, self._attributes):
            await self._mailer.send(mail)


async def _quit(connection: SmtpConnection) -> None:
    with suppress(SMTPException, OSError, TimeoutError):
        await connection.client.quit(timeout=1)
    connection.client.close()


def _mail_error(error: Exception) -> Exception:
    """Return `MailRefused` for a permanent error of this mail, else `Unavailable`."""
    if isinstance(error, SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    summary = f"{type(error).__name__}{_reply_codes(error)}"
    if _is_permanent(error):
        return MailRefused(f"The SMTP server refused the mail: {summary}")
    return Unavailable(f"The SMTP server accepts no mail at present: {summary}")


def _is_permanent(error: Exception) -> bool:
    """Return whether the mail got a 5xx reply, or the server cannot accept its address."""
    if isinstance(error, SMTPDataError | SMTPRecipientRefused | SMTPSenderRefused):
        return error.code >= MIN_PERMANENT_REPLY_CODE
    is_unaddressable = isinstance(error, ValueError) and not isinstance(error, OSError)
    return is_unaddressable or isinstance(error, SMTPNotSupported)


def _reply_codes(error: Exception) -> str:
    if not isinstance(error, SMTPResponseException):
        return ""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", error.message)
    return f" {error.code}" + (f" {enhanced[0]}" if enhanced else "")
