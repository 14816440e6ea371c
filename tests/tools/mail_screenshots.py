"""Screenshots of all mails for the docs; `make mail-pictures` runs this."""

import asyncio
from datetime import UTC, datetime
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Literal
from uuid import UUID

from playwright.async_api import Browser

from referral.adapters.mail.qr import SegnoQrCodeRenderer
from referral.adapters.mail.renderer import MailRenderer
from referral.core.entities.mail import Mail
from referral.core.entities.users import Locale
from tests.support.browser import chromium
from tests.support.fakes.system import FakeClock

IMAGES = Path(__file__).parents[2] / "docs/images"
SHARE_URL = "https://referral.example/r/ANN-2026"
WIDTH_PIXELS = 600

CODE: dict[str, object] = {
    "code": "ANN-2026",
    "expires_at": datetime(2026, 12, 31, 23, 59, tzinfo=UTC),
    "link": SHARE_URL,
    "left": 100,
}
WELCOME: dict[str, object] = {"email": "ann@example.com", "docs": "https://referral.example/docs"}
ONE_REFERRAL: dict[str, object] = {"emails": ["bob@example.com"], "more": 0}
MANY_REFERRALS: dict[str, object] = {
    "emails": [f"user{one}@example.com" for one in range(5)],
    "more": 12,
}
CONFIRM: dict[str, object] = {
    "email": "ann@example.com",
    "link": "https://referral.example/confirm?token=Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc",
}
RESET: dict[str, object] = CONFIRM | {
    "link": "https://referral.example/reset?token=Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"
}
UNSUBSCRIBE_URL = "https://referral.example/unsubscribe/AZqk1v9fcpS6"

MAILS: dict[str, tuple[str, dict[str, object], str | None, str | None]] = {
    "welcome": ("welcome", WELCOME, None, None),
    "confirm": ("confirm", CONFIRM, None, None),
    "reset": ("reset", RESET, None, None),
    "code": ("code", CODE, None, SHARE_URL),
    "referral": ("referral", ONE_REFERRAL, UNSUBSCRIBE_URL, None),
    "referrals": ("referral", MANY_REFERRALS, UNSUBSCRIBE_URL, None),
}
"""The mails by screenshot name: template, variables, unsubscribe URL and QR code URL."""


async def take_screenshots() -> None:
    """Take all screenshots: in every locale, light and dark, and without images."""
    sender = Address("Referral", "no-reply", "referral.example")
    mail_renderer = MailRenderer(sender, FakeClock(), SegnoQrCodeRenderer())
    IMAGES.mkdir(parents=True, exist_ok=True)
    async with chromium() as browser:
        for name, (template, variables, unsubscribe_url, qr) in MAILS.items():
            for locale in Locale:
                mail = Mail(
                    UUID(int=1), "ann@example.com", locale, template, variables, unsubscribe_url, qr
                )
                message, name_prefix = _parse(mail_renderer.render(mail)), f"mail-{name}-{locale}"
                await _take_screenshot(browser, message, "light", f"{name_prefix}-light")
                await _take_screenshot(browser, message, "dark", f"{name_prefix}-dark")
                if qr:
                    await _take_screenshot(
                        browser, message, "light", f"{name_prefix}-without-pictures"
                    )


def _parse(rendered: EmailMessage) -> EmailMessage:
    """Parse a mail as its recipient does."""
    return message_from_bytes(rendered.as_bytes(policy=SMTPUTF8), policy=SMTPUTF8)


async def _take_screenshot(
    browser: Browser, message: EmailMessage, scheme: Literal["light", "dark"], name: str
) -> None:
    page = await browser.new_page(
        color_scheme=scheme, viewport={"width": WIDTH_PIXELS, "height": 100}
    )
    await page.set_content(_html(message, with_images=not name.endswith("without-pictures")))
    await page.screenshot(path=IMAGES / f"{name}.png", full_page=True)
    await page.close()


def _html(message: EmailMessage, *, with_images: bool) -> str:
    """Return the HTML part with its image inline, as a mail program renders it."""
    parts = {part.get_content_type(): part for part in message.walk()}
    html = str(parts["text/html"].get_content())
    if "image/png" in parts:
        data = "".join(str(parts["image/png"].get_payload()).split()) if with_images else ""
        html = html.replace("cid:qr@referral", f"data:image/png;base64,{data}")
    return html


if __name__ == "__main__":
    asyncio.run(take_screenshots())
