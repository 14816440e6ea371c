"""Draw every mail as a mail program shows it: `make mail-pictures`."""

from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

from playwright.sync_api import Browser, sync_playwright

from referral.adapters.letters import Letters
from referral.adapters.qr import SegnoQrCodes
from referral.core.model import Locale, Mail
from tests.fakes import FakeClock

IMAGES = Path(__file__).parents[1] / "docs/images"
LINK = "https://referral.example/r/ANN-2026"
WIDTH = 600

CODE: dict[str, object] = {
    "code": "ANN-2026",
    "expires_at": datetime(2026, 12, 31, 23, 59, tzinfo=UTC),
    "link": LINK,
    "left": 100,
}
WELCOME: dict[str, object] = {"email": "ann@example.com", "docs": "https://referral.example/docs"}
ONE: dict[str, object] = {"emails": ["bob@example.com"], "more": 0}
MANY: dict[str, object] = {"emails": [f"user{one}@example.com" for one in range(5)], "more": 12}
MUTE = "https://referral.example/unsubscribe/AZqk1v9fcpS6"

MAILS: dict[str, tuple[str, dict[str, object], str | None, str | None]] = {
    "welcome": ("welcome", WELCOME, None, None),
    "code": ("code", CODE, None, LINK),
    "referral": ("referral", ONE, MUTE, None),
    "referrals": ("referral", MANY, MUTE, None),
}
"""The mails by the name of their picture: template, facts, and what goes with them."""


def draw() -> None:
    """Draw all of them, in every language, light and dark, and once without pictures."""
    letters = Letters(
        Address("Referral", "no-reply", "referral.example"), FakeClock(), SegnoQrCodes()
    )
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name, (template, facts, mute, qr) in MAILS.items():
            for locale in Locale:
                mail = Mail(UUID(int=1), "ann@example.com", locale, template, facts, mute, qr)
                message = letters.write(mail)
                for scheme in ("light", "dark"):
                    _draw(browser, message, scheme, IMAGES / f"mail-{name}-{locale}-{scheme}.png")
                if qr:
                    bare = IMAGES / f"mail-{name}-{locale}-without-pictures.png"
                    _draw(browser, message, "light", bare, pictures=False)
        browser.close()


def _draw(
    browser: Browser, message: EmailMessage, scheme: str, path: Path, *, pictures: bool = True
) -> None:
    page = browser.new_page(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": WIDTH, "height": 100},
    )
    page.set_content(_html(message, pictures=pictures))
    page.screenshot(path=path, full_page=True)
    page.close()


def _html(message: EmailMessage, *, pictures: bool) -> str:
    """Return the page with its picture in it, as a mail program puts it together."""
    parts = {part.get_content_type(): part for part in message.walk()}
    html = str(parts["text/html"].get_content())
    if "image/png" in parts:
        data = "".join(str(parts["image/png"].get_payload()).split()) if pictures else ""
        html = html.replace("cid:qr@referral", f"data:image/png;base64,{data}")
    return html


if __name__ == "__main__":
    draw()
