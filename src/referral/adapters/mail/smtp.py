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

TIMEOUT_SECONDS = 20.0
"""How long the server may take for each answer."""

IDLE_SECONDS = 15.0
MAILS_PER_CONNECTION = 200
CONNECTIONS = 10
"""How many at once: servers refuse the mails of those who take more than their share."""

PERMANENT = 500

PORTS = {"smtp": 587, "smtps": 465}


@dataclass
class SmtpConnection:
    """A connection, and what it has done so far."""

    client: aiosmtplib.SMTP
    used_at: float = 0.0
    mails: int = 0

    def is_good(self, now: float) -> bool:
        """Tell whether it is worth another mail."""
        fresh = now - self.used_at < IDLE_SECONDS and self.mails < MAILS_PER_CONNECTION
        return fresh and self.client.is_connected


class SmtpMailer:
    """Mails through a server: `smtp://` with STARTTLS when it is offered, `smtps://` for TLS."""

    name = "smtp"

    def __init__(self, url: str, letters: MailRenderer) -> None:
        """Take the server's URL, with user and password where it wants them."""
        self._url = urlsplit(url)
        self._letters = letters
        self._idle: list[SmtpConnection] = []
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def send(self, mail: Mail) -> None:
        """See the port. What the server says may hold the address, so that only codes are told."""
        message = self._letters.write(mail)
        try:
            await self._deliver(message)
        except (SMTPException, OSError, ValueError) as error:
            fault = _fault(error)
        else:
            return
        raise fault  # outside of the handler, so that no traceback leads to the server's words

    async def check(self) -> str:
        """See the port `Part`: connect and log in."""
        try:
            line = await self._connect()
        except (SMTPException, OSError, ValueError) as error:
            fault = f"does not answer ({type(error).__name__}{_codes(error)})"
        else:
            await _hang_up(line)
            return "ok"
        raise Unavailable(fault)

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_hang_up(line) for line in idle))

    async def _deliver(self, message: MimeMessage) -> None:
        async with self._places:
            line = await self._free_line()
            try:
                await self._send_on(line, message)
            except SMTPServerDisconnected:
                if not line.mails:
                    raise
                # The server had closed a connection that was idle.
                await self._send_on(await self._connect(), message)

    async def _send_on(self, line: SmtpConnection, message: MimeMessage) -> None:
        try:
            await line.client.send_message(
                message, sender=message.sender, recipients=message.recipient
            )
        except BaseException:
            line.client.close()
            raise
        line.mails += 1
        line.used_at = asyncio.get_running_loop().time()
        self._idle.append(line)

    async def _free_line(self) -> SmtpConnection:
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.is_good(now):
                return line
            line.client.close()
        return await self._connect()

    async def _connect(self) -> SmtpConnection:
        url = self._url
        client = aiosmtplib.SMTP(
            hostname=url.hostname,
            port=url.port or PORTS[url.scheme],
            username=unquote(url.username) if url.username else None,
            password=unquote(url.password) if url.password else None,
            use_tls=url.scheme == "smtps",
            timeout=TIMEOUT_SECONDS,
        )
        try:
            await client.connect()
        except BaseException:
            client.close()
            raise
        return SmtpConnection(client)


async def _hang_up(line: SmtpConnection) -> None:
    with suppress(SMTPException, OSError, TimeoutError):
        await line.client.quit(timeout=1)
    line.client.close()


def _fault(error: Exception) -> Exception:
    """Say whether another attempt may do better: not after a 5xx for this very mail."""
    if isinstance(error, SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    said = f"{type(error).__name__}{_codes(error)}"
    if _is_final(error):
        return MailRefused(f"The SMTP server refused the mail: {said}")
    return Unavailable(f"The SMTP server does not take mail now: {said}")


def _is_final(error: Exception) -> bool:
    """Tell of a 5xx for this very mail, or an address that cannot be put to this server."""
    if isinstance(error, SMTPDataError | SMTPRecipientRefused | SMTPSenderRefused):
        return error.code >= PERMANENT
    unaddressable = isinstance(error, ValueError) and not isinstance(error, OSError)
    return unaddressable or isinstance(error, SMTPNotSupported)


def _codes(error: Exception) -> str:
    if not isinstance(error, SMTPResponseException):
        return ""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", error.message)
    return f" {error.code}" + (f" {enhanced[0]}" if enhanced else "")
