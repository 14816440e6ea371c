"""The shell sessions and the single-page application of docs/signing-in.md, as printed."""

import os
import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import expect

from tests.support.api_client import API, PASSWORD, new_email
from tests.support.browser import chromium
from tests.support.page_forms import NAVIGATION, forms_of
from tests.support.service_process import Service, free_port, run_command, running_service

GUIDE = (Path(__file__).parents[2] / "docs/signing-in.md").read_text()
REDIRECT_URI = "http://localhost/callback"
CALLBACK_PATH = "/callback"


def blocks(language: str) -> list[str]:
    """Return the code of a language, in lists as well."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", GUIDE, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path, int]]:
    """A service without the password grant, its data folder, and the port of an application."""
    folder, port, shop_port = tmp_path_factory.mktemp("service") / "data", free_port(), free_port()
    settings = {
        "public_url": f"http://127.0.0.1:{port}",
        "cors_origins": f"http://localhost:{shop_port}",
        "password_grant": "off",
    }
    with running_service(folder, port=port, **settings) as running:
        yield running, folder, shop_port


def create_client(folder: Path, kind: str, redirect_uri: str) -> dict[str, str]:
    """Run the command of the guide with another name and URI; return what it prints."""
    (options,) = re.findall(rf"^\$ referral create-client {kind} (.*) \S+$", GUIDE, re.MULTILINE)
    name = f"{kind} {uuid4()}"
    result = run_command(folder, "create-client", name, *options.split(), redirect_uri)
    assert result.returncode == 0, result.stderr
    return dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)


def register(url: str) -> str:
    """Register a user, and return the e-mail address."""
    email = new_email()
    body = {"email": email, "password": PASSWORD}
    httpx.post(f"{url}{API}/auth/register", json=body).raise_for_status()
    return email


def run_shell(script: str, variables: dict[str, str]) -> str:
    """Run lines of the guide in a shell; return what they print."""
    result = subprocess.run(  # noqa: S603 - our own guide
        ["/bin/sh", "-e", "-c", script],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return result.stdout


def log_in(url: str, email: str) -> dict[str, str]:
    """Open an authorization request and log in; return the parameters of the response."""
    with httpx.Client() as browser:
        login = browser.get(url).next_request
        assert login
        fields = forms_of(browser.send(login))["/login"]
        sent = fields | {"email": email, "password": PASSWORD}
        authorize = browser.post(login.url, data=sent, headers=NAVIGATION).next_request
        assert authorize
        answer = urlsplit(browser.send(authorize).headers["Location"])
    return {name: value for name, [value] in parse_qs(answer.query).items()}


@pytest.mark.parametrize("kind", ["shop-web", "shop"])
def test_shell_session_works_as_printed(service: tuple[Service, Path, int], kind: str) -> None:
    """The flow of a public client, which also refreshes its tokens, and that of a backend."""
    running, folder, _ = service
    client, email = create_client(folder, kind, REDIRECT_URI), register(running.url)
    request, exchange, refresh, backend_exchange = blocks("sh")
    variables = {"SERVICE": running.url, "REDIRECT_URI": REDIRECT_URI}
    variables["CLIENT_ID"] = client["client_id"]
    if kind == "shop":
        variables["CLIENT_SECRET"] = client["client_secret"]
        exchange = backend_exchange
    printed = run_shell(f'{request}echo "$VERIFIER $STATE"', variables)
    url, verifier, state = printed.split()
    answer = log_in(url, email)
    assert (answer["state"], answer["iss"]) == (state, running.url)
    tokens = run_shell(exchange, variables | {"CODE": answer["code"], "VERIFIER": verifier})
    assert '"access_token"' in tokens
    if kind == "shop-web":
        (token,) = re.findall(r'"refresh_token":"([^"]+)"', tokens)
        assert '"access_token"' in run_shell(refresh, variables | {"REFRESH_TOKEN": token})


class ShopHandler(BaseHTTPRequestHandler):
    """Serves the application of the guide."""

    page = b""

    def do_GET(self) -> None:
        """Return the page for its path."""
        is_page = urlsplit(self.path).path == CALLBACK_PATH
        self.send_response(200 if is_page else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.page if is_page else b"")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


async def test_single_page_application_works_as_printed(
    service: tuple[Service, Path, int],
) -> None:
    """It signs a user in, removes the code from the address bar, and refuses a foreign response."""
    running, folder, port = service
    shop_url = f"http://localhost:{port}"
    client = create_client(folder, "shop-web", f"{shop_url}{CALLBACK_PATH}")
    email, (page,) = register(running.url), blocks("html")
    for printed, real in (
        ("https://referral.example.com", running.url),
        ("https://shop.example.com", shop_url),
        (re.findall(r'clientId = "(.+)"', page)[0], client["client_id"]),
    ):
        assert printed in page
        page = page.replace(printed, real)
    handler = type("Handler", (ShopHandler,), {"page": page.encode()})
    with ThreadingHTTPServer(("localhost", port), handler) as shop:
        Thread(target=shop.serve_forever, daemon=True).start()
        async with chromium() as browser:
            tab = await browser.new_page(locale="en")
            await tab.goto(f"{shop_url}{CALLBACK_PATH}")
            await tab.get_by_role("button", name="Sign in").click()
            await tab.get_by_label("E-mail address").fill(email)
            await tab.get_by_label("Password").fill(PASSWORD)
            await tab.get_by_role("button", name="Log in").click()
            await expect(tab.locator("#result")).to_have_text(f"Signed in as {email}")
            assert tab.url == f"{shop_url}{CALLBACK_PATH}"
            await tab.get_by_role("button", name="Sign in").click()
            await expect(tab.locator("#result")).to_have_text(f"Signed in as {email}")
            await tab.goto(f"{shop_url}{CALLBACK_PATH}?code=x&state=y&iss={running.url}")
            await expect(tab.locator("#result")).to_have_text("This sign-in was not begun here.")
        shop.shutdown()
