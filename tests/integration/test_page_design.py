"""The design of the service's own pages, rendered in Chromium: contrast, size and field errors."""

import re
from collections.abc import AsyncIterator

import pytest
from litestar.testing import RequestFactory
from playwright.async_api import Browser, Page

from referral.core.entities.users import Locale
from referral.web.pages.rendering import render_form, render_notice
from referral.web.pages.translations import TEXTS
from tests.support.browser import chromium

EMAIL = "maximiliana.von.example+referrals@subdomain.example.com"
NOTICES = [key.removesuffix("_message") for key in TEXTS[Locale.EN] if key.endswith("_message")]
FORMS = [
    ("confirm", None),
    ("confirm", "wrong_password"),
    ("reset", None),
    ("reset", "weak_password"),
    ("unsubscribe", None),
]
PHONE = {"width": 390, "height": 844}
PHONE_AT_200_PERCENT = {"width": 195, "height": 422}

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
    if (element.matches("input, button"))
      controls.push([element.outerHTML, style.borderTopColor, background(element.parentElement)]);
  }
  return [texts, controls];
}
"""
OVERFLOWS = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """A browser for all tests of this module."""
    async with chromium() as started:
        yield started


def _render_all(locale: Locale) -> list[str]:
    request = RequestFactory().get(headers={"Accept-Language": locale})
    forms = [
        render_form(request, name, error=error, token="t", email=EMAIL)  # noqa: S106 - no secret
        for name, error in FORMS
    ]
    notices = [render_notice(request, name, seconds=30) for name in NOTICES]
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
        for button in await page.locator("button").all():
            await button.hover()
            await _check_contrast(page)


@pytest.mark.parametrize("locale", Locale)
async def test_pages_fit_a_phone(browser: Browser, locale: Locale) -> None:
    """No page scrolls sideways at 390 pixels, nor there at 200 % zoom; controls fit a finger."""
    for viewport in (PHONE, PHONE_AT_200_PERCENT):
        page = await browser.new_page(viewport=viewport)  # type: ignore[arg-type]
        for html in _render_all(locale):
            await page.set_content(html)
            assert not await page.evaluate(OVERFLOWS)
            for control in await page.locator("button:visible, input:visible").all():
                box = await control.bounding_box()
                assert box
                assert box["height"] >= 44


async def test_pages_lead_on(browser: Browser) -> None:
    """Each has the product's name and mark as a link to the home page, and no script."""
    page = await browser.new_page()
    for html in _render_all(Locale.EN):
        await page.set_content(html)
        product = page.get_by_role("banner").get_by_role("link", name="Referral", exact=True)
        assert await product.get_attribute("href") == "/"
        assert await product.locator("svg").is_visible()
        assert await page.get_by_role("main").get_by_role("link").count() >= 1
        assert await page.locator("script").count() == 0
        assert (await page.title()).endswith(" · Referral")


@pytest.mark.parametrize("name_and_error", [form for form in FORMS if form[1]])
async def test_error_is_beside_its_field(browser: Browser, name_and_error: tuple[str, str]) -> None:
    """It is directly below the field, which has the focus and is described by it."""
    name, error = name_and_error
    request = RequestFactory().get()
    html = render_form(request, name, error=error, token="t", email=EMAIL)  # noqa: S106 - no secret
    page = await browser.new_page()
    await page.set_content(html.content)
    field = page.locator("[aria-invalid=true]")
    alert = page.get_by_role("alert")
    assert await field.get_attribute("aria-describedby") == await alert.get_attribute("id")
    field_box, alert_box = await field.bounding_box(), await alert.bounding_box()
    assert field_box
    assert alert_box
    assert 0 <= alert_box["y"] - field_box["y"] - field_box["height"] <= 12


async def test_primary_button_differs_from_a_disabled_one(browser: Browser) -> None:
    """Each form has one filled button, in a color and not in grey; deleting is no primary one."""
    request = RequestFactory().get()
    page = await browser.new_page()
    for name, _ in FORMS:
        html = render_form(request, name, token="t", email=EMAIL)  # noqa: S106 - no secret
        await page.set_content(html.content)
        [color] = await page.evaluate(
            "() => [...document.querySelectorAll('button')]"
            ".map((button) => getComputedStyle(button).backgroundColor)"
            ".filter((color) => color !== 'rgba(0, 0, 0, 0)')"
        )
        assert len(set(re.findall(r"\d+", color))) > 1
