"""Screenshots of the docs pages in docs/images; `make screenshots` takes them."""

import asyncio
import re
import tempfile
from hashlib import sha256
from pathlib import Path

import httpx

from referral.app import create_app
from referral.settings import Settings
from tests.support.browser import chromium, service_client

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PAGES = {"swagger": ("/docs", ".opblock"), "redoc": ("/redoc", "[id^='tag/'] h2")}

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
    content = [*(page.encode() for page in pages), *(body.content for body in bodies)]
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
    DIGEST_FILE.write_text(f"{await digest()}\n")


if __name__ == "__main__":
    asyncio.run(take_screenshots())
