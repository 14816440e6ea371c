"""The API documentation pages in Chromium, served by a service in its own process."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.support.api_client import PASSWORD, new_email, register
from tests.support.browser import chromium, service_client

SCROLL_WIDTH = "document.documentElement.scrollWidth"
HAS_BRIGHT_TITLE = """
wanted => {
  const {color} = getComputedStyle(document.querySelector(".info .title"));
  const [red, green, blue] = color.match(/\\d+/g).map(Number);
  return (red + green + blue > 400) === wanted;
}
"""


@pytest.fixture(scope="module")
async def running(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running service."""
    settings = {
        "REFERRAL_DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "REFERRAL_DATABASE_URL": database_url,
        "REFERRAL_SIGNING_KEY_FILE": str(key_file),
    }
    async with service_client(**settings) as client:
        yield client


@pytest.fixture(scope="module")
async def context() -> AsyncIterator[BrowserContext]:
    """A context of a new browser."""
    async with chromium() as browser:
        yield await browser.new_context()


class PageMonitor:
    """Records the requests and errors of a page."""

    def __init__(self, page: Page) -> None:
        """Start to record."""
        self.requested_urls: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requested_urls.append(request.url))
        page.on("requestfailed", lambda request: self.errors.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message: object) -> None:
        if getattr(message, "type", "") in {"error", "warning"}:
            self.errors.append(getattr(message, "text", ""))

    def requests_to_other_hosts(self, url: httpx.URL) -> list[str]:
        """Return the URLs that leave the service; a data: URL sends no request."""
        own = (str(url), f"blob:{url}", "data:")
        return [url_ for url_ in self.requested_urls if not url_.startswith(own)]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/docs", "#operations-Accounts-registerUser"),
        ("/redoc", "[id='tag/Accounts/operation/registerUser'] h2"),
    ],
)
async def test_page_loads_everything_from_the_service(
    running: httpx.AsyncClient, context: BrowserContext, path: str, content: str
) -> None:
    """A page works without Internet: no console message, no failed request, no other host."""
    page = await context.new_page()
    monitor = PageMonitor(page)
    await page.goto(f"{running.base_url}{path}")
    await expect(page.locator(content)).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert monitor.errors == []
    assert monitor.requests_to_other_hosts(running.base_url) == []
    assert f"{running.base_url}/openapi.json" in monitor.requested_urls


async def test_pages_show_the_operations_in_the_order_of_use(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """Both begin with registration and log-in, and list the rest in the order of the document."""
    document = (await running.get("/openapi.json")).json()
    order = [
        operation["operationId"]
        for item in (*document["paths"].values(), *document["webhooks"].values())
        for operation in item.values()
    ]
    assert order[:2] == ["registerUser", "issueToken"]
    for path, selector in (("/docs", ".opblock"), ("/redoc", "[id*='/operation/']:has(h2)")):
        page = await context.new_page()
        await page.goto(f"{running.base_url}{path}")
        await expect(page.locator(selector)).to_have_count(len(order))
        ids = await page.locator(selector).evaluate_all("nodes => nodes.map((node) => node.id)")
        assert [re.split("[-/]", name)[-1] for name in ids] == order


async def test_pages_fit_a_phone(running: httpx.AsyncClient, context: BrowserContext) -> None:
    """Neither scrolls sideways at 390 pixels, also with an operation open."""
    page = await context.new_page()
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(f"{running.base_url}/docs")
    operation = page.locator(".opblock").first
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    assert await page.evaluate(SCROLL_WIDTH) == 390
    await page.goto(f"{running.base_url}/redoc")
    await expect(page.locator("h2").first).to_be_visible()
    assert await page.evaluate(SCROLL_WIDTH) == 390


async def test_swagger_ui_authorizes_and_calls_a_route(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """The Authorize dialog takes e-mail and password, and the next call sends the token."""
    email = new_email()
    await register(running, email)
    page = await context.new_page()
    monitor = PageMonitor(page)
    await page.goto(f"{running.base_url}/docs")
    await _authorize(page, email)
    operation = page.locator("#operations-My_account-getMe")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    async with page.expect_request("**/api/v1/me") as request:
        await operation.get_by_role("button", name="Execute").click()
    assert (await (await request.value).header_value("authorization") or "").startswith("Bearer ")
    response = operation.locator(".live-responses-table")
    await expect(response.locator(".response-col_status").last).to_contain_text("200")
    await expect(response.locator(".response-col_description").last).to_contain_text(email)
    assert monitor.errors == []


async def test_swagger_ui_stores_no_credential(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """The browser stores nothing, and a reloaded page is not authorized."""
    email = new_email()
    await register(running, email)
    page = await context.new_page()
    await page.goto(f"{running.base_url}/docs")
    await _authorize(page, email)
    stored = await page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert stored == '[{},{},""]'
    await page.reload()
    await page.locator(".auth-wrapper > button.authorize.unlocked").first.wait_for()


async def test_swagger_ui_works_by_keyboard(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """Enter opens the Authorize dialog, whose focus is on the first field, and sends the form."""
    email = new_email()
    await register(running, email)
    page = await context.new_page()
    await page.goto(f"{running.base_url}/docs")
    await page.locator(".auth-wrapper > button.authorize").first.press("Enter")
    form = page.locator(".auth-container", has_text="OAuth2, password")
    await expect(form.locator("#oauth_username")).to_be_focused()
    for key in (*email, "Tab", *PASSWORD, "Enter"):
        await page.keyboard.press(key)
    await expect(form.get_by_role("button", name="Remove authorization")).to_be_visible()


async def test_swagger_ui_follows_the_colour_scheme(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """Light on dark where the system is dark, also after a change."""
    page = await context.new_page()
    await page.emulate_media(color_scheme="dark")
    await page.goto(f"{running.base_url}/docs")
    await expect(page.locator(".opblock").first).to_be_visible()
    await page.wait_for_function(HAS_BRIGHT_TITLE, arg=True)
    await page.emulate_media(color_scheme="light")
    await page.wait_for_function(HAS_BRIGHT_TITLE, arg=False)


PROBLEMS = {
    **dict.fromkeys(("confirmEmail", "disownEmail", "resetPassword"), "422"),  # a token of a mail
    "setMyReferrer": "422",  # nobody has the code
}
NEEDS_CLIENT = "introspectToken"
"""Without a client, the browser asks for one in a window of its own."""


async def test_prefilled_bodies_run_in_the_order_of_the_page(
    running: httpx.AsyncClient, context: BrowserContext
) -> None:
    """Try it out and Execute succeed on a new service, unless an id is to be filled in.

    `tests/web/test_openapi.py` sends the examples of all operations.
    """
    document = (await running.get("/openapi.json")).json()
    with_body = {
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    }
    page = await context.new_page()
    await page.goto(f"{running.base_url}/docs")
    await page.locator(".opblock").first.wait_for()
    executed = {}
    for operation in await page.locator(".opblock").all():
        name = (await operation.get_attribute("id") or "").rpartition("-")[2]
        if name in with_body - {NEEDS_CLIENT} and (status := await _execute(operation)):
            executed[name] = status
        if name == "issueToken":
            await _authorize(page, "ann@example.com")
    forbidden = "403"  # the routes of clients with a scope
    failed = {
        name: status
        for name, status in executed.items()
        if status[0] not in "23" and status != forbidden
    }
    assert failed == PROBLEMS
    assert len(executed) > 10


async def _execute(operation: Locator) -> str | None:
    """Send the prefilled request, and return the status; None if it needs an id."""
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    ids = operation.locator("tr[data-param-in=path] input")
    if await ids.count() and not await ids.first.input_value():
        return None
    await operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table .response .response-col_status")
    status = (await shown.inner_text()).split()[0]
    await operation.locator(".opblock-summary-control").click()
    return status


async def _authorize(page: Page, email: str) -> None:
    await page.locator(".auth-wrapper > button.authorize").first.click()
    form = page.locator(".auth-container", has_text="OAuth2, password")
    await expect(form.locator("#oauth_username")).to_be_focused()
    await page.keyboard.type(email)
    await form.locator("#oauth_password").fill(PASSWORD)
    await form.get_by_role("button", name="Apply given OAuth2 credentials").click()
    await expect(form.get_by_role("button", name="Remove authorization")).to_be_visible()
    await page.locator(".dialog-ux .btn-done").first.click()


async def test_swagger_ui_signs_in_by_code_without_the_password_grant(
    database_url: str, key_file: Path, tmp_path: Path, context: BrowserContext
) -> None:
    """Authorize opens the login page, and the next call sends the token; nothing is stored."""
    settings = {
        "REFERRAL_DATA_DIR": str(tmp_path),
        "REFERRAL_DATABASE_URL": database_url,
        "REFERRAL_SIGNING_KEY_FILE": str(key_file),
        "REFERRAL_PASSWORD_GRANT": "off",
    }
    email = new_email()
    async with service_client(**settings) as service:
        await register(service, email)
        page = await context.new_page()
        monitor = PageMonitor(page)
        await page.goto(f"{service.base_url}/docs")
        await page.locator(".auth-wrapper > button.authorize").first.click()
        form = page.locator(".auth-container", has_text="OAuth2, authorizationCode")
        async with page.expect_popup() as opened:
            await form.get_by_role("button", name="Apply given OAuth2 credentials").click()
        popup = await opened.value
        assert "API documentation" in await popup.inner_text("main")
        await popup.get_by_label("E-mail address").fill(email)
        await popup.get_by_label("Password").fill(PASSWORD)
        async with popup.expect_event("close"):
            await popup.get_by_role("button", name="Log in").click()
        await expect(form.get_by_role("button", name="Remove authorization")).to_be_visible()
        await page.locator(".dialog-ux .btn-done").first.click()
        operation = page.locator("#operations-My_account-getMe")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        await operation.get_by_role("button", name="Execute").click()
        response = operation.locator(".live-responses-table")
        await expect(response.locator(".response-col_description").last).to_contain_text(email)
        assert monitor.errors == []
        stored = await page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        )
        assert stored == '[{},{},""]'
