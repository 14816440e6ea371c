"""Rendering of mails as MIME messages, from the templates beside this module."""

from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import Address
from email.utils import format_datetime
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from referral.adapters.mail.mime import (
    HeaderValue,
    MimeMessage,
    as_part,
    fold_header,
    image_part,
    multipart,
    text_part,
)
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from referral.core.ports.system import Clock, QrCodeRenderer

MONTH_NAMES = {
    Locale.EN: "January February March April May June July August September October November "
    "December",
    Locale.RU: "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}


class MailRenderer:
    """Renders mails. The recipient's address is the only user input in the headers."""

    def __init__(self, sender: Address, clock: Clock, qr_codes: QrCodeRenderer) -> None:
        """`sender` is the address in the From header of every mail."""
        self._sender = sender
        self._from_header = fold_header("From", sender)
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
        self._templates.filters["format_time"] = _format_time
        # All are compiled now: an upgrade in place replaces the files while this process runs.
        for name in self._templates.list_templates():
            self._templates.get_template(name)

    def render(self, mail: Mail) -> MimeMessage:
        """Render a mail; the first line of its text template is the subject."""
        variables = {
            "locale": mail.locale,
            "unsubscribe_url": mail.unsubscribe_url,
            "qr": mail.qr_url is not None,
        }
        subject, _, text = self._render_template(mail, "txt", variables).partition("\n")
        html = text_part(
            "html", self._render_template(mail, "html", variables | {"subject": subject})
        )
        if mail.qr_url is not None:
            image = image_part(self._qr_codes.png(mail.qr_url), "qr.png", "<qr@referral>")
            html = as_part(multipart("related", mail.id, html, image))
        plain = text_part("plain", text.strip() + "\n")
        message = MimeMessage(*multipart("alternative", mail.id, plain, html))
        self._set_headers(message, mail, subject)
        return message

    def _render_template(self, mail: Mail, extension: str, variables: Mapping[str, object]) -> str:
        template = self._templates.get_template(f"{mail.locale}/{mail.template}.{extension}")
        return template.render({**mail.variables, **variables})

    def _set_headers(self, message: MimeMessage, mail: Mail, subject: str) -> None:
        local_part, _, domain = mail.to.rpartition("@")
        message.sender = self._sender.addr_spec
        message.set_folded_header(self._from_header)
        message.recipient = Address(username=local_part, domain=domain).addr_spec
        message.set_header("To", message.recipient)
        message.set_folded_header(_subject_header(subject))
        message.set_header("Date", format_datetime(self._clock.now()))
        message.set_header("Message-ID", f"<{mail.id}@{self._sender.domain}>")
        message.set_header("Auto-Submitted", "auto-generated")
        message.set_header("Content-Language", str(mail.locale))
        if mail.unsubscribe_url is not None:
            message.set_header("List-Unsubscribe", f"<{mail.unsubscribe_url}>")
            message.set_header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")


@lru_cache(256)
def _subject_header(text: str) -> HeaderValue:
    return fold_header("Subject", text)


def _format_time(time: datetime, locale: Locale) -> str:
    month = MONTH_NAMES[locale].split()[time.month - 1]
    year = f"{time.year}" if locale is Locale.EN else f"{time.year} г."
    return f"{time.day} {month} {year}, {time:%H:%M} UTC"
