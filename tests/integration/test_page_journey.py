"""The journey of two people over the pages, in Chromium: share link, join, mail, account, reset."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.policy import SMTPUTF8
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from referral.core.entities.users import Locale
from referral.web.pages.translations import TEXTS
from tests.support.api_client import NEW_PASSWORD, PASSWORD
from tests.support.browser import chromium
from tests.support.service_process import Service, free_port, run_command, running_service
from tests.support.waiting import wait_for_value

WIDTH = 360
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service that requires confirmed addresses and writes mails to files."""
    port, folder = free_port(), tmp_path_factory.mktemp("service") / "data"
    settings = {"public_url": f"http://127.0.0.1:{port}", "email_verification": "on"}
    with running_service(folder, port=port, limit_mail="off", **settings) as running:
        yield running, folder
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "@" not in log.replace("no-reply@localhost", "")


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests of this module."""
    async with chromium() as started:
        yield started


@asynccontextmanager
async def open_page(browser: Browser, **options: Any) -> AsyncIterator[Page]:
    """Open a page on a phone; every page that it shows must fit and have no error."""
    context: BrowserContext = await browser.new_context(
        viewport={"width": WIDTH, "height": 800}, **options
    )
    page, errors = await context.new_page(), []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    refused = re.compile("the server responded with a status of 4")
    assert [error for error in errors if not refused.search(error)] == []
    await context.close()


async def find_link(folder: Path, page: str, email: str, known: set[str]) -> str:
    """Return the new link to a page in a mail to an address."""

    async def look() -> str:
        for file in (folder / "mail").glob("*.eml"):
            mail = message_from_bytes(file.read_bytes(), policy=SMTPUTF8)
            body = mail.get_body(("plain",))
            found = re.search(rf"http://\S+/{page}\?token=\S+", body.get_content() if body else "")
            if found and mail["To"] == email and found[0] not in known:
                return found[0]
        return ""

    link = await wait_for_value(look)
    known.add(link)
    return link


class ByMouse:
    """Fills in forms by labels and clicks."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def fill(self, label: str, value: str) -> None:
        """Fill in a field."""
        await self.page.get_by_label(label, exact=True).fill(value)

    async def press(self, name: str) -> None:
        """Press a button, and wait for the next page."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name=name, exact=True).click()
        assert not await self.page.evaluate(OVERFLOWS), self.page.url

    async def follow(self, name: str) -> None:
        """Follow a link."""
        async with self.page.expect_navigation():
            await self.page.get_by_role("link", name=name, exact=True).first.click()

    async def open(self, summary: str) -> None:
        """Open a part of the page."""
        await self.page.get_by_text(summary, exact=True).click()


class ByKeyboard(ByMouse):
    """Does the same with Tab, Enter and text alone."""

    async def fill(self, label: str, value: str) -> None:
        """Reach the field by Tab, and type."""
        field = self.page.get_by_label(label, exact=True)
        await self._reach(field)
        await self.page.keyboard.press("Control+A")
        await self.page.keyboard.type(value)

    async def press(self, name: str) -> None:
        """Reach the button by Tab, and press Enter."""
        await self._reach(self.page.get_by_role("button", name=name, exact=True))
        async with self.page.expect_navigation():
            await self.page.keyboard.press("Enter")
        assert not await self.page.evaluate(OVERFLOWS), self.page.url

    async def follow(self, name: str) -> None:
        """Reach the link by Tab, and press Enter."""
        await self._reach(self.page.get_by_role("link", name=name, exact=True).first)
        async with self.page.expect_navigation():
            await self.page.keyboard.press("Enter")

    async def open(self, summary: str) -> None:
        """Reach the summary by Tab, and press Enter."""
        await self._reach(self.page.get_by_text(summary, exact=True))
        await self.page.keyboard.press("Enter")

    async def _reach(self, target: Any) -> None:
        is_focused = "(element) => element === document.activeElement"
        for _ in range(60):
            if await target.evaluate(is_focused):
                outline = "(element) => getComputedStyle(element).outlineStyle"
                assert await target.evaluate(outline) == "solid"
                return
            await self.page.keyboard.press("Tab")
        raise AssertionError(f"not reached by Tab on {self.page.url}: {target}")


Journey = Callable[[Page], ByMouse]


async def join_and_confirm(
    hand: ByMouse, service: tuple[Service, Path], texts: dict[str, str], path: str, email: str
) -> None:
    """Join by a share link, look into the mailbox, and confirm the address."""
    running, folder = service
    page = hand.page
    await page.goto(f"{running.url}{path}")
    await hand.fill(texts["email_label"], email)
    await hand.fill(texts["password_label"], "password")
    await hand.press(texts["join_button"])
    await expect(page.get_by_role("alert")).to_have_text(texts["weak_password"])
    await hand.fill(texts["password_label"], PASSWORD)
    await hand.press(texts["join_button"])
    assert await page.inner_text("h1") == texts["joined_title"]
    await page.goto(await find_link(folder, "confirm", email, set()))
    await hand.fill(texts["password_label"], PASSWORD)
    await hand.press(texts["confirm_button"])
    assert await page.inner_text("h1") == texts["confirmed_title"]


async def log_in(hand: ByMouse, texts: dict[str, str], email: str, password: str) -> None:
    """Log in, on the page that shows the form."""
    await hand.fill(texts["email_label"], email)
    await hand.fill(texts["password_label"], password)
    await hand.press(texts["login_button"])


async def walk(
    hand: ByMouse, service: tuple[Service, Path], texts: dict[str, str], share_link: str
) -> str:
    """Take the whole journey; return the share link of the new code."""
    running, folder = service
    page, email = hand.page, f"p{uuid4().hex[:10]}@example.com"
    await join_and_confirm(hand, service, texts, share_link, email)
    await hand.follow(texts["account_link"])
    assert page.url == f"{running.url}/login"
    await log_in(hand, texts, email, "not the password")
    await expect(page.get_by_role("alert")).to_have_text(texts["login_failed"])
    await log_in(hand, texts, email, PASSWORD)
    assert page.url == f"{running.url}/account"

    await hand.open(texts["code_options"])
    text = f"P-{uuid4().hex[:8]}".upper()
    await hand.fill(texts["code_text_label"], text)
    await hand.press(texts["code_create_button"])
    await expect(page.locator(".code-text strong")).to_have_text(text)
    qr = page.get_by_alt_text(texts["code_qr_alt"])
    assert await qr.evaluate("(image) => image.complete && image.naturalWidth > 0")
    await hand.press(texts["code_renew_button"])

    await hand.press(texts["logout_button"])
    assert await page.inner_text("h1") == texts["logged_out_title"]
    await page.goto(f"{running.url}/account")
    assert page.url == f"{running.url}/login"

    await hand.follow(texts["forgotten_link"])
    await hand.fill(texts["email_label"], email)
    await hand.press(texts["forgot_button"])
    assert await page.inner_text("h1") == texts["forgot_sent_title"]
    await page.goto(await find_link(folder, "reset", email, set()))
    await hand.fill(texts["reset_label"], NEW_PASSWORD)
    await hand.press(texts["reset_button"])
    await hand.follow(texts["login_link"])
    await log_in(hand, texts, email, NEW_PASSWORD)
    await hand.open(texts["code_switch_off"])
    link = await page.get_by_role("link", name=f"{running.url}/r/").inner_text()
    return link.removeprefix(running.url)


@pytest.mark.parametrize(
    ("make_hand", "options"),
    [
        (ByMouse, {"locale": "en", "color_scheme": "light"}),
        (ByKeyboard, {"locale": "ru", "color_scheme": "dark"}),
        (ByMouse, {"locale": "ru", "color_scheme": "light", "java_script_enabled": False}),
        (ByMouse, {"locale": "en", "color_scheme": "dark", "java_script_enabled": False}),
    ],
    ids=["mouse", "keyboard", "without-javascript-ru", "without-javascript-en"],
)
async def test_two_people_take_the_journey(
    service: tuple[Service, Path], browser: Browser, make_hand: Journey, options: dict[str, Any]
) -> None:
    """The first shares a link; the second joins by it and is shown to the first."""
    texts = TEXTS[Locale(options["locale"])]
    # Mails and the account follow the language of the browser in which somebody joined.
    async with open_page(browser, **options) as page:
        link = await walk(make_hand(page), service, texts, "/")
        async with open_page(browser, **options) as other:
            await other.goto(f"{service[0].url}{link}")
            assert texts["join_good"] in await other.inner_text("main")
            await walk(make_hand(other), service, texts, link)
        await page.goto(f"{service[0].url}/account")
        assert texts["referrals_count"].format(count=1) in await page.inner_text("main")
        await make_hand(page).follow(texts["referrals_all"])
        assert texts["status_confirmed"] in await page.inner_text("main")


async def test_link_is_copied(service: tuple[Service, Path], browser: Browser) -> None:
    """By a button that is shown where scripts run."""
    texts = TEXTS[Locale.EN]
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_page(browser, locale="en", permissions=permissions) as page:
        link = await walk(ByMouse(page), service, texts, "/")
        await page.get_by_role("button", name=texts["code_copy"]).click()
        await expect(page.locator("#copied")).to_have_text(texts["code_copied"])
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == f"{service[0].url}{link}"


async def serve_client(
    port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Be a client that sends the browser on to another host name, which shows the Referer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if head.startswith("GET /callback"):
        answer = f"HTTP/1.1 302 Found\r\nLocation: http://localhost:{port}/home\r\n\r\n"
    else:
        answer = f"HTTP/1.1 200 OK\r\n\r\nReferer: {'referer: ' in head.lower()}"
    writer.write(answer.encode())
    await writer.drain()
    writer.close()


async def test_client_gets_its_code_after_the_login_form(
    service: tuple[Service, Path], browser: Browser
) -> None:
    """Browsers apply `form-action` to the redirects after a form, also the client's own ones."""
    running, folder = service
    texts, port = TEXTS[Locale.EN], free_port()
    callback = f"http://127.0.0.1:{port}/callback"
    options = ("--public", "--redirect-uri", callback, "--json")
    client_id = json.loads(run_command(folder, "create-client", "desktop", *options).stdout)[
        "client_id"
    ]
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": callback,
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    email = f"p{uuid4().hex[:10]}@example.com"
    client = await asyncio.start_server(partial(serve_client, port), "127.0.0.1", port)
    async with client, open_page(browser, locale="en") as page:
        await join_and_confirm(ByMouse(page), service, texts, "/join", email)
        await page.goto(f"{running.url}/oauth/authorize?{urlencode(query)}")
        assert "desktop" in await page.inner_text("main")
        async with page.expect_request(f"{callback}?**") as request:
            await log_in(ByMouse(page), texts, email, PASSWORD)
        sent = parse_qs(urlsplit((await request.value).url).query)
        assert sent.keys() == {"code", "iss"}
        assert await page.inner_text("body") == "Referer: False"
