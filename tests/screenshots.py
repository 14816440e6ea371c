"""Take the pictures of the docs pages in docs/images; `make screenshots` runs this."""

import asyncio
import tempfile
from pathlib import Path

from tests.browsing import chromium, service

PORT = 18302
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PAGES = {"swagger": ("/docs", ".opblock"), "redoc": ("/redoc", "[id^='tag/'] h2")}


async def take_all() -> None:
    """Photograph each page of a new service."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with service(PORT, REFERRAL_DATA_DIR=folder) as client, chromium() as browser:
            page = await browser.new_page(viewport={"width": 1280, "height": 900})
            for name, (path, content) in PAGES.items():
                await page.goto(f"{client.base_url}{path}", wait_until="networkidle")
                await page.locator(content).first.wait_for()
                await page.screenshot(path=IMAGES / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(take_all())
