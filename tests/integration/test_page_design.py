"""The design of the service's own pages, rendered in Chromium: contrast, size and field errors."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from litestar.testing import RequestFactory
from playwright.async_api import Browser, Page

from referral.core.entities.account_view import AccountView
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.referrals import ReferralListItem, ReferralStatus
from referral.core.entities.users import Locale, Role, User
from referral.web.pages.rendering import render_form, render_notice
from referral.web.pages.translations import TEXTS
from tests.support.browser import chromium

EMAIL = "maximiliana.von.example+referrals@subdomain.example.com"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOTICES = [key.removesuffix("_message") for key in TEXTS[Locale.EN] if key.endswith("_message")]
USER = User(
    id=UUID(int=1),
    email=EMAIL,
    email_key=EMAIL,
    password_hash="",
    role=Role.MEMBER,
    locale=Locale.EN,
    email_verified=False,
    notify_on_referral=True,
    created_at=NOW,
)
CODE = Code(UUID(int=2), USER.id, "W" * 32, NOW, NOW + timedelta(days=7), 100, 99, enabled=True)
PEOPLE = [
    ReferralListItem(UUID(int=3), UUID(int=4), email, status, "A", NOW)
    for email in (EMAIL, None)
    for status in ReferralStatus
]
LINK_VARIABLES = {"token": "t", "email": EMAIL}
FORM_VARIABLES = {"form_token": "t", "form_id": "i", "email": EMAIL}
JOIN_VARIABLES = FORM_VARIABLES | {"code": CODE, "has_bad_code": False, "referral_code": CODE.text}
LOGIN_VARIABLES = FORM_VARIABLES | {
    "action": "/login",
    "client_name": "W" * 100,
    "has_ended": True,
}
ACCOUNT_VARIABLES = {
    "account": AccountView(USER, None, 1000, PEOPLE, CODE, NOW, enabled_code=CODE),
    "code": CODE,
    "code_status": CodeStatus.ACTIVE,
    "code_url": "http://127.0.0.1:8000/r/" + CODE.text,
    "expiry_days": (7, 30, 90, 365),
    "fields": {},
    "form_token": "t",
    "form_id": "i",
    "is_confirmed": False,
}
NO_CODE = ACCOUNT_VARIABLES | {"code": None, "code_status": None, "code_url": None}
FORMS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    ("confirm", {}, LINK_VARIABLES),
    ("confirm", {"password": "wrong_password"}, LINK_VARIABLES),
    ("reset", {}, LINK_VARIABLES),
    ("reset", {"new_password": "weak_password"}, LINK_VARIABLES),
    ("unsubscribe", {}, LINK_VARIABLES),
    ("login", {}, LOGIN_VARIABLES),
    ("login", {"password": "login_failed"}, LOGIN_VARIABLES),
    ("logout", {}, {"form_token": "t"}),
    ("forgot", {}, FORM_VARIABLES),
    ("forgot", {"email": "invalid_email"}, FORM_VARIABLES),
    ("join", {}, JOIN_VARIABLES),
    ("join", {}, JOIN_VARIABLES | {"code": None, "has_bad_code": True}),
    ("join", {"email": "email_taken"}, JOIN_VARIABLES),
    ("join", {"password": "weak_password"}, JOIN_VARIABLES),
    ("join", {"referral_code": "code_unusable"}, JOIN_VARIABLES),
    ("account", {}, ACCOUNT_VARIABLES),
    ("account", {}, ACCOUNT_VARIABLES | {"code_status": CodeStatus.EXPIRED}),
    ("account", {}, ACCOUNT_VARIABLES | {"code_status": CodeStatus.EXHAUSTED}),
    ("account", {}, NO_CODE),
    ("account", {"code": "code_text_taken"}, NO_CODE),
    ("account", {"expires_at": "code_expiry_invalid"}, ACCOUNT_VARIABLES),
    ("account", {"page": "code_exists"}, ACCOUNT_VARIABLES),
    ("referrals", {}, {"referrals": PEOPLE, "next_id": UUID(int=5)}),
]
PHONE = {"width": 360, "height": 800}
PHONE_AT_200_PERCENT = {"width": 180, "height": 400}

MIN_TEXT_CONTRAST, MIN_CONTROL_CONTRAST = 4.5, 3.0
"""WCAG 2.2 AA: 1.4.3 for text, 1.4.11 for the outlines of controls."""

LIST_COLORS = """
() => {
  const background = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : color;
  };
  const texts = [], controls = [];
  for (const element of document.body.querySelectorAll("*")) {
    if (!element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    if ([...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
      texts.push([element.outerHTML, style.color, background(element)]);
    if (element.matches("input, button, select"))
      controls.push([element.outerHTML, style.borderTopColor, background(element.parentElement)]);
  }
  return [texts, controls];
}
"""
VISIBLE_CONTROLS = "button:visible, input:visible, select:visible"
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests of this module."""
    async with chromium() as started:
        yield started


def _render_all(locale: Locale) -> list[str]:
    request = RequestFactory().get(headers={"Accept-Language": locale})
    forms = [
        render_form(request, name, errors=errors, **variables) for name, errors, variables in FORMS
    ]
    notices = [render_notice(request, name, time="30 s") for name in NOTICES]
    return [page.content for page in (*forms, *notices)]


def _luminance(color: str) -> float:
    channels = [int(channel) / 255 for channel in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


async def _check_contrast(page: Page) -> None:
    texts, controls = await page.evaluate(LIST_COLORS)
    assert texts
    for colors, minimum in ((texts, MIN_TEXT_CONTRAST), (controls, MIN_CONTROL_CONTRAST)):
        low = [entry for entry in colors if _contrast(*entry[1:]) < minimum]
        assert low == []


@pytest.mark.parametrize("locale", Locale)
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
async def test_pages_have_enough_contrast(
    browser: Browser, locale: Locale, color_scheme: str
) -> None:
    """Every text and control has WCAG's AA contrast, also of a button below the pointer."""
    page = await browser.new_page(color_scheme=color_scheme)  # type: ignore[arg-type]
    for html in _render_all(locale):
        await page.set_content(html)
        for summary in await page.locator("summary").all():
            await summary.click()
        await _check_contrast(page)
        for button in await page.locator("button:visible").all():
            await button.hover()
            await _check_contrast(page)


@pytest.mark.parametrize("locale", Locale)
async def test_pages_fit_a_phone(browser: Browser, locale: Locale) -> None:
    """No page scrolls sideways at 360 pixels, nor there at 200 % zoom; controls fit a finger."""
    for viewport in (PHONE, PHONE_AT_200_PERCENT):
        page = await browser.new_page(viewport=viewport)  # type: ignore[arg-type]
        for html in _render_all(locale):
            await page.set_content(html)
            assert not await page.evaluate(OVERFLOWS)
            for control in await page.locator(
                "button:visible, input:visible, select:visible"
            ).all():
                box = await control.bounding_box()
                assert box
                assert box["height"] >= 44


async def test_pages_lead_on(browser: Browser) -> None:
    """Each has the product's name and mark as a link home, and no script from elsewhere."""
    page = await browser.new_page()
    for html in _render_all(Locale.EN):
        await page.set_content(html)
        product = page.get_by_role("banner").get_by_role("link", name="Referral", exact=True)
        assert await product.get_attribute("href") == "/"
        assert await product.locator("svg").is_visible()
        assert await page.get_by_role("main").get_by_role("link").count() >= 1
        assert await page.locator("script[src]").count() == 0
        assert (await page.title()).endswith(" · Referral")


@pytest.mark.parametrize("form", [form for form in FORMS if form[1].keys() - {"page"}])
async def test_error_is_beside_its_field(
    browser: Browser, form: tuple[str, dict[str, str], dict[str, Any]]
) -> None:
    """It is directly below the field, which has the focus and is described by it."""
    name, errors, variables = form
    html = render_form(RequestFactory().get(), name, errors=errors, **variables)
    page = await browser.new_page()
    await page.set_content(html.content)
    field = page.locator("[aria-invalid=true]")
    alert = page.get_by_role("alert")
    described_by = await field.get_attribute("aria-describedby") or ""
    assert await alert.get_attribute("id") in described_by.split()
    assert (await page.title()).startswith("Error: ")
    field_box, alert_box = await field.bounding_box(), await alert.bounding_box()
    assert field_box
    assert alert_box
    assert 0 <= alert_box["y"] - field_box["y"] - field_box["height"] <= 12


async def test_primary_button_differs_from_a_disabled_one(browser: Browser) -> None:
    """Each form has one filled button, in a color and not in grey; deleting is no primary one."""
    request = RequestFactory().get()
    page = await browser.new_page()
    for name, _, variables in FORMS[:15]:
        html = render_form(request, name, **variables)
        await page.set_content(html.content)
        [color] = await page.evaluate(
            "() => [...document.querySelectorAll('button')]"
            ".map((button) => getComputedStyle(button).backgroundColor)"
            ".filter((color) => color !== 'rgba(0, 0, 0, 0)')"
        )
        assert len(set(re.findall(r"\d+", color))) > 1
