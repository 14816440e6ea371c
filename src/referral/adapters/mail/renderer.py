"""Mails as MIME messages, written from the templates beside this module."""

from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import Address
from email.utils import format_datetime
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from referral.adapters.mail.mime import (
    HeaderValue,
    MimeMessage,
    fold,
    nested,
    parts_of,
    picture_part,
    text_part,
)
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from referral.core.ports.system import Clock, QrCodes

MONTHS = {
    Locale.EN: "January February March April May June July August September October November "
    "December",
    Locale.RU: "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}


class MailRenderer:
    """Writes mails. Nothing in a header comes from a user but the address that it goes to."""

    def __init__(self, sender: Address, clock: Clock, qr_codes: QrCodes) -> None:
        """Take whom the mails are from."""
        self._sender = sender
        self._from = fold("From", sender)
        self._clock = clock
        self._qr_codes = qr_codes
        self._templates = Environment(
            loader=PackageLoader("referral", "adapters/mail/templates"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters["day"] = _day

    def write(self, mail: Mail) -> MimeMessage:
        """Write a mail; of a template's text, the first line is the subject."""
        facts = {"locale": mail.locale, "mute": mail.mute, "qr": mail.qr is not None}
        subject, _, text = self._render(mail, "txt", facts).partition("\n")
        html = text_part("html", self._render(mail, "html", facts | {"subject": subject}))
        if mail.qr is not None:
            picture = picture_part(self._qr_codes.png(mail.qr), "qr.png", "<qr@referral>")
            html = nested(parts_of("related", mail.id, html, picture))
        plain = text_part("plain", text.strip() + "\n")
        envelope = MimeMessage(*parts_of("alternative", mail.id, plain, html))
        self._put_headers(envelope, mail, subject)
        return envelope

    def _render(self, mail: Mail, kind: str, facts: Mapping[str, object]) -> str:
        template = self._templates.get_template(f"{mail.locale}/{mail.template}.{kind}")
        return template.render({**mail.facts, **facts})

    def _put_headers(self, envelope: MimeMessage, mail: Mail, subject: str) -> None:
        local_part, _, domain = mail.to.rpartition("@")
        envelope.sender = self._sender.addr_spec
        envelope.put_line(self._from)
        envelope.recipient = Address(username=local_part, domain=domain).addr_spec
        envelope.put("To", envelope.recipient)
        envelope.put_line(_subject(subject))
        envelope.put("Date", format_datetime(self._clock.now()))
        envelope.put("Message-ID", f"<{mail.id}@{self._sender.domain}>")
        envelope.put("Auto-Submitted", "auto-generated")
        envelope.put("Content-Language", str(mail.locale))
        if mail.mute is not None:
            envelope.put("List-Unsubscribe", f"<{mail.mute}>")
            envelope.put("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")


@lru_cache(256)
def _subject(text: str) -> HeaderValue:
    return fold("Subject", text)


def _day(time: datetime, locale: Locale) -> str:
    month = MONTHS[locale].split()[time.month - 1]
    year = f"{time.year}" if locale is Locale.EN else f"{time.year} г."
    return f"{time.day} {month} {year}, {time:%H:%M} UTC"
