"""Mails as MIME messages, written from the templates beside this module."""

from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import (
    Address,
    BaseHeader,
    HeaderRegistry,
    UniqueAddressHeader,
    UnstructuredHeader,
)
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from referral.core.model import Locale, Mail
from referral.core.ports import Clock, QrCodes

MONTHS = {
    Locale.EN: "January February March April May June July August September October November "
    "December",
    Locale.RU: "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}


class Unfolded:
    """A header on one line: the standard library breaks long words up as encoded words, which
    nobody reads an address or a link out of.
    """

    name: str

    def fold(self, *, policy: Policy) -> str:
        """Return the line."""
        return f"{self.name}: {self}{policy.linesep}"


class LinkHeader(Unfolded, UnstructuredHeader):
    """A header with a link."""


class ToHeader(Unfolded, UniqueAddressHeader):
    """A header with one address."""


class Registry(HeaderRegistry):
    """The kinds of headers by name, each made once and not anew for every header."""

    def __init__(self) -> None:
        """Know none yet."""
        super().__init__()
        self._made: dict[str, type[BaseHeader]] = {}

    def __getitem__(self, name: str) -> type[BaseHeader]:
        """Return the kind of a header."""
        if name not in self._made:
            self._made[name] = super().__getitem__(name)
        return self._made[name]


HEADERS = Registry()
OWN: dict[str, Any] = {"list-unsubscribe": LinkHeader, "message-id": LinkHeader, "to": ToHeader}
for _name, _kind in OWN.items():
    HEADERS.map_to_type(_name, _kind)
POLICY = SMTP.clone(header_factory=HEADERS)


class Letters:
    """Writes mails. Nothing in a header comes from a user but the address that it goes to."""

    def __init__(self, sender: Address, clock: Clock, qr_codes: QrCodes) -> None:
        """Take whom the mails are from."""
        self._sender = sender
        self._clock = clock
        self._qr_codes = qr_codes
        self._templates = Environment(
            loader=PackageLoader("referral", "adapters/templates"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["day"] = _day

    def write(self, mail: Mail) -> EmailMessage:
        """Write a mail; of a template's text, the first line is the subject."""
        facts = {"locale": mail.locale, "mute": mail.mute, "qr": mail.qr is not None}
        subject, _, text = self._render(mail, "txt", facts).partition("\n")
        html = self._render(mail, "html", facts | {"subject": subject})
        message = EmailMessage(POLICY)
        message.set_content(text.strip() + "\n", cte="quoted-printable")
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        if mail.qr is not None:
            self._put_picture(message, mail.qr)
        self._put_headers(message, mail, subject)
        return message

    def _render(self, mail: Mail, kind: str, facts: Mapping[str, object]) -> str:
        template = self._templates.get_template(f"{mail.locale}/{mail.template}.{kind}")
        return template.render({**mail.facts, **facts})

    def _put_headers(self, message: EmailMessage, mail: Mail, subject: str) -> None:
        local_part, _, domain = mail.to.rpartition("@")
        message["From"] = self._sender
        message["To"] = Address(username=local_part, domain=domain)
        message["Subject"] = subject
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{mail.id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message["Content-Language"] = str(mail.locale)
        if mail.mute is not None:
            message["List-Unsubscribe"] = f"<{mail.mute}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"

    def _put_picture(self, message: EmailMessage, link: str) -> None:
        html = message.get_payload()[1]  # type: ignore[index]  # the alternative made just now
        picture = self._qr_codes.png(link)
        html.add_related(  # type: ignore[union-attr]
            picture, "image", "png", cid="<qr@referral>", filename="qr.png", disposition="inline"
        )


def _day(time: datetime, locale: Locale) -> str:
    month = MONTHS[locale].split()[time.month - 1]
    year = f"{time.year}" if locale is Locale.EN else f"{time.year} г."
    return f"{time.day} {month} {year}, {time:%H:%M} UTC"
