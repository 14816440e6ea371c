"""The links in e-mails, opened in Chromium with JavaScript disabled."""

import re
from email import message_from_bytes
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_client import API, NEW_PASSWORD, PASSWORD, Member, join, log_in, register
from tests.support.browser import chromium
from tests.support.service_process import Service, free_port, running_service
from tests.support.waiting import wait_for_value

EMAIL = "zoe@example.com"


@pytest.fixture
async def link(tmp_path: Path) -> Any:
    """Find the link to a page in the e-mail files that the service wrote."""

    async def find(page: str, email: str) -> str:
        async def look() -> str:
            return _find_link(tmp_path / "data" / "mail", page, email)

        return await wait_for_value(look)

    return find


def _find_link(folder: Path, page: str, email: str) -> str:
    for file in folder.glob("*.eml"):
        mail = message_from_bytes(file.read_bytes(), policy=SMTPUTF8)
        body = mail.get_body(("plain",))
        found = re.search(rf"http://\S+/{page}\?token=\S+", body.get_content() if body else "")
        if found and mail["To"] == email:
            return found[0]
    return ""


async def test_account_lifecycle_without_javascript(tmp_path: Path, link: Any) -> None:
    """Registration, confirmation, password reset and erasure work with the links of the e-mails."""
    port = free_port()
    public_url = f"http://127.0.0.1:{port}"
    settings = {"public_url": public_url, "email_verification": "on"}
    with running_service(tmp_path / "data", port=port, **settings) as service:
        await _run_account_lifecycle(service, link)
    assert "Traceback" not in service.log.read_text()
    assert EMAIL not in service.log.read_text()


async def _run_account_lifecycle(service: Service, link: Any) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client, chromium() as browser:
        ann = await join(client)
        code = (await ann.issue_code())["code"]
        assert (await register(client, EMAIL, referral_code=code, locale="ru")).status_code == 201
        assert (await ann.request("GET", "/me/referrals")).json()["items"][0]["status"] == "pending"
        page = await (await browser.new_context(java_script_enabled=False, locale="ru")).new_page()

        await page.goto(await link("confirm", EMAIL))
        assert EMAIL in await page.inner_text("main")
        await page.get_by_label("Пароль").fill("not the password")
        await page.get_by_role("button", name="Подтвердить").click()
        assert await page.get_by_role("alert").is_visible()
        await page.get_by_label("Пароль").fill(PASSWORD)
        await page.get_by_role("button", name="Подтвердить").click()
        assert "подтверждён" in await page.inner_text("h1")
        referral = (await ann.request("GET", "/me/referrals")).json()["items"][0]
        assert referral["status"] == "confirmed"

        await client.post(f"{API}/auth/password/forgot", json={"email": EMAIL})
        await page.goto(await link("reset", EMAIL))
        await page.get_by_label("Новый пароль").fill("password123")
        await page.get_by_role("button").click()
        assert await page.get_by_role("alert").is_visible()
        await page.get_by_label("Новый пароль").fill(NEW_PASSWORD)
        await page.get_by_role("button").click()
        assert "Пароль изменён" in await page.inner_text("h1")

        assert (await log_in(client, EMAIL, PASSWORD)).status_code == 400
        tokens = (await log_in(client, EMAIL, NEW_PASSWORD)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        member = Member(client, referral["id"], EMAIL, headers)
        assert (await member.request("GET", "/me")).json()["email_verified"] is True
        deleted = await member.request("DELETE", "/me", json={"password": NEW_PASSWORD})
        assert deleted.status_code == 204
        assert (await log_in(client, EMAIL, NEW_PASSWORD)).status_code == 400
        me = (await ann.request("GET", "/me")).json()
        assert (me["referral_count"], me["recent_referrals"][0]["email"]) == (1, None)
