"""Screenshots of the service's pages in docs/images; `make screenshots` takes them."""

import asyncio
import re
import tempfile
from hashlib import sha256
from pathlib import Path

import httpx
from playwright.async_api import Browser

from referral.app import create_app
from referral.settings import Settings
from tests.support.api_client import PASSWORD, join, register
from tests.support.browser import chromium, service_client

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PAGES = {"swagger": ("/docs", ".opblock"), "redoc": ("/redoc", "[id^='tag/'] h2")}

PHONE_WIDTH = 420
PEOPLE = ("bob@example.com", "carol@example.com", "dave@example.com")
PAGES_FOLDER = Path(__file__).parents[2] / "src/referral/web/pages"
PAGE_FILES = [*PAGES_FOLDER.glob("templates/*"), PAGES_FOLDER / "messages/en.toml"]

DIGEST_FILE = IMAGES / "shown.sha256"
"""The digest of the pages at the time of the screenshots."""


async def digest() -> str:
    """Return the digest of the pages, of the files that they load, and of the API document."""
    transport = httpx.ASGITransport(create_app(Settings()))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        pages = [(await client.get(path)).text for path, _ in PAGES.values()]
        loaded = sorted(set(re.findall(r'(?:src|href)="(/[^"]+)"', "".join(pages))))
        bodies = [(await client.get(path)).raise_for_status() for path in loaded]
        document = await client.get("/openapi.json")
    files = [file.read_bytes() for file in sorted(PAGE_FILES)]
    content = [*files, *(page.encode() for page in pages), *(body.content for body in bodies)]
    return sha256(b"".join((*content, document.content))).hexdigest()


async def take_screenshots() -> None:
    """Take a screenshot of each page of a new service."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with service_client(REFERRAL_DATA_DIR=folder) as client, chromium() as browser:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            for name, (path, content) in PAGES.items():
                await page.goto(f"{client.base_url}{path}", wait_until="networkidle")
                await page.locator(content).first.wait_for()
                await page.screenshot(path=IMAGES / f"{name}.png")
            await take_page_screenshots(client, browser)
    DIGEST_FILE.write_text(f"{await digest()}\n")


async def take_page_screenshots(client: httpx.AsyncClient, browser: Browser) -> None:
    """Take screenshots of `/join` and `/account`, with a code and people who joined with it."""
    ann = await join(client, "ann@example.com")
    await ann.issue_code(code="ANN-2026", lifetime_minutes=30 * 24 * 60)
    for email in PEOPLE:
        (await register(client, email, referral_code="ANN-2026")).raise_for_status()
    page = await browser.new_page(
        viewport={"width": PHONE_WIDTH, "height": 800}, device_scale_factor=2, locale="en"
    )
    await page.goto(f"{client.base_url}/join?ref=ANN-2026")
    await page.screenshot(path=IMAGES / "join.png", full_page=True)
    await page.goto(f"{client.base_url}/login")
    await page.get_by_label("E-mail address").fill(ann.email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await page.locator(".code").wait_for()
    await page.wait_for_load_state("networkidle")
    await page.screenshot(path=IMAGES / "account.png", full_page=True)


if __name__ == "__main__":
    asyncio.run(take_screenshots())
