"""MIME messages, parsed by the standard library."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from uuid import UUID

import pytest
from aiosmtplib.email import flatten_message
from hypothesis import given
from hypothesis import strategies as st

from referral.adapters.mail.mime import MimeMessage, multipart, text_part
from referral.adapters.mail.qr import SegnoQrCodeRenderer
from referral.adapters.mail.renderer import MailRenderer
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from tests.support.fakes.system import FakeClock

CODE = {
    "code": "ANN",
    "expires_at": datetime(2026, 1, 2, tzinfo=UTC),
    "left": 3,
    "link": "http://test/r/ANN",
}
LINK: dict[str, object] = {
    "email": "ann@example.com",
    "link": f"http://test/confirm?token={'x' * 200}",
}
MAILS: list[tuple[str, dict[str, object], str | None, str | None]] = [
    ("welcome", {"email": "ann@example.com", "docs": "http://test/docs"}, None, None),
    ("confirm", LINK, None, None),
    ("reset", LINK, None, None),
    ("code", CODE, None, "http://test/r/ANN"),
    ("referral", {"emails": ["bob@example.com"], "more": 0}, f"http://test/{'m' * 90}", None),
]


def parse(content: bytes) -> EmailMessage:
    """Parse a message as a mail program does."""
    return message_from_bytes(content, policy=SMTPUTF8)


@pytest.mark.parametrize("locale", list(Locale))
@pytest.mark.parametrize(("template", "variables", "unsubscribe_url", "qr_url"), MAILS)
def test_mail_is_well_formed(
    template: str,
    variables: dict[str, object],
    unsubscribe_url: str | None,
    qr_url: str | None,
    locale: Locale,
) -> None:
    """No defect in any part, no line over the SMTP limit, nothing but ASCII."""
    renderer = MailRenderer(
        Address("Реферал", "no-reply", "test"), FakeClock(), SegnoQrCodeRenderer()
    )
    mail = Mail(
        UUID(int=7), "ann@example.com", locale, template, variables, unsubscribe_url, qr_url
    )
    content = flatten_message(renderer.render(mail))
    message = parse(content)
    parts = list(message.walk())
    assert [part.defects for part in parts] == [[] for _ in parts]
    assert all(not header.defects for part in parts for header in part.values())
    assert max(map(len, content.split(b"\r\n"))) < 998
    assert content.isascii()
    assert b"\n" not in content.replace(b"\r\n", b"")
    html_parts = ["multipart/related", "text/html", "image/png"] if qr_url else ["text/html"]
    assert [part.get_content_type() for part in parts] == [
        "multipart/alternative",
        "text/plain",
        *html_parts,
    ]
    assert message["From"] == "Реферал <no-reply@test>"
    assert message["Message-ID"] == "<00000000-0000-0000-0000-000000000007@test>"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_transmitted_unchanged(text: str) -> None:
    """Dots, trailing blanks and boundary-like text; only line endings are normalized."""
    whole = MimeMessage(*multipart("alternative", UUID(int=1), text_part("plain", text)))
    (part,) = parse(whole.as_bytes(policy=SMTP)).iter_parts()
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().replace("\r\n", "\n") == expected


@pytest.mark.parametrize("value", ["a\r\nBcc: eve@example.com", "a\nb", "a\rb"])
def test_header_with_a_line_break_is_rejected(value: str) -> None:
    """It could inject another header."""
    message = MimeMessage(*multipart("alternative", UUID(int=1), text_part("plain", "")))
    with pytest.raises(ValueError, match="line break"):
        message.set_header("X-Test", value)
