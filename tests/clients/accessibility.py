"""axe-core's check of the pages, in both colour schemes and languages: nothing serious.

The arguments are the URL of a running service and the path of axe-core's script.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from playwright.async_api import Page

from tests.support.api_client import PASSWORD
from tests.support.browser import chromium

SEVERE = {"serious", "critical"}
RUN = "() => axe.run(document, {resultTypes: ['violations']})"
PAGES = ("/join", "/join?ref=UNKNOWN", "/join/done", "/login", "/forgot", "/forgot/sent", "/logout")
LINK_PAGES = ("/confirm", "/reset", "/oauth/authorize")
USER_PAGES = ("/account", "/account/referrals", "/account/mail-sent", "/logout")


async def find_violations(page: Page, axe: str) -> list[dict[str, Any]]:
    """Return what axe-core calls serious or critical on a page."""
    await page.evaluate(axe)
    result = await page.evaluate(RUN)
    return [
        {"page": page.url, "rule": found["id"], "nodes": [node["html"] for node in found["nodes"]]}
        for found in result["violations"]
        if found["impact"] in SEVERE
    ]


async def check(page: Page, url: str, email: str, axe: str) -> list[dict[str, Any]]:
    """Return the violations of all pages: of nobody, after errors, and of a user with a code."""
    violations = []
    for path in (*PAGES, *LINK_PAGES):
        await page.goto(f"{url}{path}")
        violations += await find_violations(page, axe)
    for password in ("wrong", PASSWORD):
        await page.goto(f"{url}/login")
        await page.locator("#email").fill(email)
        await page.locator("#password").fill(password)
        async with page.expect_navigation():
            await page.locator("main form button").click()
        violations += await find_violations(page, axe)
    for path in USER_PAGES:
        await page.goto(f"{url}{path}")
        violations += await find_violations(page, axe)
    await page.goto(f"{url}/account")
    async with page.expect_navigation():
        await page.locator("form[action='/account/codes'] button").click()
    await page.locator("summary").click()
    return violations + await find_violations(page, axe)


async def main(url: str, axe: str) -> int:
    """Check the pages; return 1 and print the violations if there are any."""
    violations = []
    async with chromium() as browser:
        for scheme, locale in (("light", "en"), ("dark", "ru")):
            email = f"axe-{uuid4().hex}@example.com"
            account = {"email": email, "password": PASSWORD, "locale": locale}
            async with httpx.AsyncClient(base_url=url) as client:
                (await client.post("/api/v1/auth/register", json=account)).raise_for_status()
            options: Any = {"color_scheme": scheme, "locale": locale}
            page = await browser.new_page(viewport={"width": 360, "height": 800}, **options)
            violations += await check(page, url, email, axe)
    for violation in violations:
        sys.stdout.write(f"{violation}\n")
    return 1 if violations else 0


if __name__ == "__main__":
    script = Path(sys.argv[2]).read_text(encoding="utf-8")
    sys.exit(asyncio.run(main(sys.argv[1], script)))
