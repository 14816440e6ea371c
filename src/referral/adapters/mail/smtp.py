"""Mail by SMTP. A connection carries several mails."""

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

from referral.adapters.mail.mime import MimeMessage
from referral.adapters.mail.renderer import MailRenderer
from referral.core.entities.mail import Mail
from referral.core.errors import MailRefused, Unavailable

REPLY_TIMEOUT_SECONDS = 20.0
"""How long the server may take for each answer."""

MAX_IDLE_SECONDS = 15.0
MAX_MAILS_PER_CONNECTION = 200
MAX_CONNECTIONS = 10
"""How many at once: servers refuse the mails of those who take more than their share."""

MIN_PERMANENT_REPLY_CODE = 500

DEFAULT_PORTS = {"smtp": 587, "smtps": 465}


@dataclass
class SmtpConnection:
    """A connection, and what it has done so far."""

    client: aiosmtplib.SMTP
    last_used_at: float = 0.0
    mails_sent: int = 0

    def is_reusable(self, now: float) -> bool:
        """Tell whether it is worth another mail."""
        is_fresh = (
            now - self.last_used_at < MAX_IDLE_SECONDS
            and self.mails_sent < MAX_MAILS_PER_CONNECTION
        )
        return is_fresh and self.client.is_connected


class SmtpMailer:
    """Mails through a server: `smtp://` with STARTTLS when it is offered, `smtps://` for TLS."""

    name = "smtp"

    def __init__(self, url: str, mail_renderer: MailRenderer) -> None:
        """Take the server's URL, with user and password where it wants them."""
        self._url = urlsplit(url)
        self._mail_renderer = mail_renderer
        self._idle: list[SmtpConnection] = []
        self._permits = asyncio.Semaphore(MAX_CONNECTIONS)

    async def send(self, mail: Mail) -> None:
        """See the port. What the server says may hold the address, so that only codes are told."""
        message = self._mail_renderer.render(mail)
        try:
            await self._deliver(message)
        except (SMTPException, OSError, ValueError) as error:
            failure = _mail_error(error)
        else:
            return
        raise failure  # outside of the handler, so that no traceback leads to the server's words

    async def check(self) -> str:
        """See the port `Part`: connect and log in."""
        try:
            connection = await self._connect()
        except (SMTPException, OSError, ValueError) as error:
            failure = f"does not answer ({type(error).__name__}{_reply_codes(error)})"
        else:
            await _quit(connection)
            return "ok"
        raise Unavailable(failure)

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
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
                # The server had closed a connection that was idle.
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


async def _quit(connection: SmtpConnection) -> None:
    with suppress(SMTPException, OSError, TimeoutError):
        await connection.client.quit(timeout=1)
    connection.client.close()


def _mail_error(error: Exception) -> Exception:
    """Say whether another attempt may do better: not after a 5xx for this very mail."""
    if isinstance(error, SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    summary = f"{type(error).__name__}{_reply_codes(error)}"
    if _is_permanent(error):
        return MailRefused(f"The SMTP server refused the mail: {summary}")
    return Unavailable(f"The SMTP server does not take mail now: {summary}")


def _is_permanent(error: Exception) -> bool:
    """Tell of a 5xx for this very mail, or an address that cannot be put to this server."""
    if isinstance(error, SMTPDataError | SMTPRecipientRefused | SMTPSenderRefused):
        return error.code >= MIN_PERMANENT_REPLY_CODE
    unaddressable = isinstance(error, ValueError) and not isinstance(error, OSError)
    return unaddressable or isinstance(error, SMTPNotSupported)


def _reply_codes(error: Exception) -> str:
    if not isinstance(error, SMTPResponseException):
        return ""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", error.message)
    return f" {error.code}" + (f" {enhanced[0]}" if enhanced else "")
