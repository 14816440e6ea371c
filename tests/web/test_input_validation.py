"""Hostile input never causes a 5xx: it is rejected, or stored unchanged."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from tests.support.api_client import Member, join, register
from tests.web.injection_points import HOSTILE_TEXTS, INJECTION_POINTS, BuildRequest, send


@pytest.fixture
async def ann(client: httpx.AsyncClient) -> Member:
    """A member who is logged in."""
    return await join(client)


def errors(response: httpx.Response) -> list[dict[str, str]]:
    """Return the field errors of an `invalid-request`."""
    assert response.status_code == 422, response.text
    assert response.json()["type"].endswith("/invalid-request")
    listed: list[dict[str, str]] = response.json()["errors"]
    return listed


@pytest.mark.parametrize("injection_point", INJECTION_POINTS.values(), ids=INJECTION_POINTS)
async def test_no_hostile_text_causes_a_5xx(ann: Member, injection_point: BuildRequest) -> None:
    """Errors have the proper media type."""
    for name, text in HOSTILE_TEXTS.items():
        response = await send(ann, injection_point, text)
        assert response.status_code < 500, (name, response.text)
        if response.status_code >= 400:
            assert is_readable_error(response), (name, response.headers)


TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),  # all planes and categories, lone surrogates included
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"]), max_size=12),
    st.text(st.characters(categories=["Mn", "Me", "Nl", "No", "So", "Sk"]), max_size=40),
    st.text("\\'\"`%{}[]()<>&;|$#@!~^*=+-/?:,. \t\r\n\0", max_size=40),
    st.sampled_from(sorted(HOSTILE_TEXTS)).flatmap(lambda name: st.just(HOSTILE_TEXTS[name] * 3)),
    st.integers().map(str),
    st.floats().map(str),
)
"""Generated hostile texts."""


@pytest.mark.parametrize("injection_point", INJECTION_POINTS.values(), ids=INJECTION_POINTS)
@how(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one account is enough
)
@given(text=TEXTS)
async def test_no_generated_text_causes_a_5xx(
    ann: Member, injection_point: BuildRequest, text: str
) -> None:
    """Texts of every Unicode category, the same in each run."""
    response = await send(ann, injection_point, text)
    assert response.status_code < 500, response.text
    assert response.is_success or response.is_redirect or is_readable_error(response)


def is_readable_error(response: httpx.Response) -> bool:
    """Return whether an error has the form of its route: a page for people, or JSON."""
    content_type = response.headers["content-type"]
    if content_type == "text/html; charset=utf-8":
        return response.request.url.path.startswith("/unsubscribe/") and "</main>" in response.text
    return content_type in JSON_TYPES and bool(response.json())


JSON_TYPES = ("application/problem+json", "application/json")


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
async def test_email_is_rejected_or_stored_as_typed(ann: Member, text: str) -> None:
    """No e-mail is changed, and no stored one can harm a mail header."""
    email = text if "@" in text else f"x{text}@example.com"
    response = await send(ann, INJECTION_POINTS["register email"], email)
    if response.status_code != 201:
        assert response.status_code in {400, 409, 422}, response.text
        return
    assert response.json()["email"] == email
    assert email.isprintable()
    assert "=?" not in email


@pytest.mark.parametrize("text", ["a\nb@example.com", "a@exa\rmple.com", "a@example.com\n"])
async def test_email_with_a_line_break_is_rejected(client: httpx.AsyncClient, text: str) -> None:
    """A line break in an e-mail could inject mail headers."""
    assert [error["pointer"] for error in errors(await register(client, text))] == ["/email"]


@pytest.mark.parametrize("path", ["/me/codes", "/me/referrals"])
@pytest.mark.parametrize(
    "limit",
    ["0", "101", "-1", "+1", "1e1", "1.0", " 5", "5 ", "\uff15", "0x5", "1_0", "", "1000", "x"],
)
async def test_limit_out_of_range_is_rejected(ann: Member, path: str, limit: str) -> None:
    """Only digits are accepted, unlike in Python's int()."""
    response = await ann.request("GET", path, params={"limit": limit})
    assert [error["parameter"] for error in errors(response)] == ["limit"]


@pytest.mark.parametrize("limit", ["1", "100", "007"])
async def test_limit_within_the_range_is_accepted(ann: Member, limit: str) -> None:
    """Both ends are in the range."""
    response = await ann.request("GET", "/me/codes", params={"limit": limit})
    assert response.status_code == 200


@pytest.mark.parametrize("query", ["limit=5&limit=x", "cursor=&cursor=x", "status=x&status=x"])
async def test_repeated_parameter_is_validated(ann: Member, query: str) -> None:
    """A repeated parameter must be valid too."""
    name = query.partition("=")[0]
    response = await ann.request("GET", f"/me/codes?{query}")
    assert [error["parameter"] for error in errors(response)] == [name]


@pytest.mark.parametrize("path", ["/me/codes", "/me/referrals"])
async def test_unknown_status_filter_is_rejected(ann: Member, path: str) -> None:
    """An unknown filter value is not ignored."""
    response = await ann.request("GET", path, params={"status": "gone"})
    assert [error["parameter"] for error in errors(response)] == ["status"]


@pytest.mark.parametrize(
    ("method", "path", "request_arguments", "choices"),
    [
        ("GET", "/me/codes", {"params": {"status": "x"}}, "active, inactive, expired, exhausted"),
        (
            *("GET", "/me/codes", {"params": {"status": "null"}}),
            "active, inactive, expired, exhausted",
        ),
        ("GET", "/me/referrals", {"params": {"status": ""}}, "pending, confirmed, rejected"),
        ("PATCH", "/me", {"json": {"locale": "x' - at `$.role`"}}, "en, ru"),
    ],
)
async def test_error_of_an_enum_names_the_choices(
    ann: Member, method: str, path: str, request_arguments: dict[str, Any], choices: str
) -> None:
    """Of a parameter and of a field of the body."""
    [error] = errors(await ann.request(method, path, **request_arguments))
    assert error["detail"].startswith("Invalid enum value ")
    assert error["detail"].endswith(f". Use one of: {choices}.")


@pytest.mark.parametrize(
    ("method", "path", "request_arguments", "hint"),
    [
        ("POST", "/me/codes", {"json": {"expires_at": "2099-01-01T00:00:00"}}, "UTC offset"),
        ("POST", "/me/codes", {"json": {"expires_at": "tomorrow"}}, "UTC offset"),
        ("POST", "/me/codes", {"json": {"expires_at": 5}}, "UTC offset"),
        ("PATCH", "/me", {"json": {"notify_on_referral": "yes"}}, "Must be true or false."),
        ("PATCH", "/me", {"json": {"notify_on_referral": None}}, "Must be true or false."),
        ("PATCH", "/me", {"json": {"locale": []}}, "Must be a string."),
        ("POST", "/me/codes", {"json": []}, "Must be an object."),
        ("POST", "/me/codes", {"json": {"max_uses": "5"}}, "Must be an integer or null."),
        ("POST", "/me/codes", {"json": {"max_uses": 0}}, "Must be an integer of at least 1."),
        (
            *("POST", "/me/codes", {"json": {"code": "A"}}),
            "Must be a string with a length of at least 3.",
        ),
        (
            *("POST", "/me/codes", {"json": {"code": "A_B"}}),
            "Must be a string matching regex '^[A-Za-z0-9-]+$'.",
        ),
    ],
)
async def test_error_of_a_value_says_what_to_send(
    ann: Member, method: str, path: str, request_arguments: dict[str, Any], hint: str
) -> None:
    """In the terms of JSON, not in those of Python."""
    [error] = errors(await ann.request(method, path, **request_arguments))
    assert hint in error["detail"]
    assert "`" not in error["detail"]


async def test_missing_scope_is_named(ann: Member) -> None:
    """In words, and as RFC 6750 defines it."""
    response = await ann.request("GET", "/webhooks")
    assert response.status_code == 403
    assert "a client with the scope 'webhooks'" in response.json()["detail"]
    challenge = response.headers["WWW-Authenticate"]
    assert challenge == 'Bearer error="insufficient_scope", scope="webhooks"'


async def second_page_cursor(member: Member, path: str = "/me/codes") -> str:
    """Return the cursor of a list's second page."""
    for _ in range(2):
        await member.issue_code(activate=False)
    cursor = (await member.request("GET", path, params={"limit": 1})).json()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


async def test_cursor_leads_to_the_next_page(ann: Member) -> None:
    """The last page has no cursor."""
    cursor = await second_page_cursor(ann)
    page = await ann.request("GET", "/me/codes", params={"limit": 1, "cursor": cursor})
    assert len(page.json()["items"]) == 1
    assert page.json()["next_cursor"] is None


@pytest.mark.parametrize("garbage", ["", "x", "AAAA", "=", "A" * 32, "A" * 5000, "ü", "\0"])
async def test_invalid_cursor_is_rejected(ann: Member, garbage: str) -> None:
    """A cursor that the service did not make is 422."""
    response = await ann.request("GET", "/me/codes", params={"cursor": garbage})
    assert [error["parameter"] for error in errors(response)] == ["cursor"]


@pytest.mark.parametrize("change", ["changed", "longer", "padded"])
async def test_modified_cursor_is_rejected(ann: Member, change: str) -> None:
    """A cursor cannot be modified to read another part of the list."""
    cursor = await second_page_cursor(ann)
    first = "A" if cursor[0] != "A" else "B"
    modified = {"changed": first + cursor[1:], "longer": cursor + "A", "padded": cursor + "=="}[
        change
    ]
    response = await ann.request("GET", "/me/codes", params={"cursor": modified})
    assert [error["parameter"] for error in errors(response)] == ["cursor"]


async def test_cursor_of_another_list_is_rejected(ann: Member) -> None:
    """A cursor is bound to its list and filter."""
    cursor = await second_page_cursor(ann)
    for path, filters in [("/me/referrals", {}), ("/me/codes", {"status": "active"})]:
        response = await ann.request("GET", path, params={"cursor": cursor} | filters)
        assert [error["parameter"] for error in errors(response)] == ["cursor"]


async def test_cursor_of_another_user_is_rejected(ann: Member, client: httpx.AsyncClient) -> None:
    """A cursor is bound to its user."""
    bob = await join(client)
    response = await bob.request(
        "GET", "/me/codes", params={"cursor": await second_page_cursor(ann)}
    )
    assert [error["parameter"] for error in errors(response)] == ["cursor"]


TIMES = {
    "no offset": "2026-12-01T00:00:00",
    "no time": "2026-12-01",
    "a number": 1796083200,
    "text of a number": "1796083200",
    "year 1": "0001-01-01T00:00:00Z",
    "year 1, before it in UTC": "0001-01-01T00:00:00+14:00",
    "year 9999": "9999-12-31T23:59:59Z",
    "year 9999, after it in UTC": "9999-12-31T23:59:59-14:00",
    "year 0": "0000-01-01T00:00:00Z",
    "year 10000": "10000-01-01T00:00:00Z",
    "13th month": "2026-13-01T00:00:00Z",
    "30th of February": "2027-02-30T00:00:00Z",
    "24 o'clock": "2026-12-01T24:00:00Z",
    "an offset of 30 hours": "2026-12-01T00:00:00+30:00",
    "a word": "tomorrow",
    "empty": "",
}


@pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)
async def test_invalid_expiry_is_rejected(ann: Member, time: str | int) -> None:
    """An expiry has an offset and is a minute to a year ahead."""
    code = await ann.issue_code()
    made = await ann.request("POST", "/me/codes", json={"expires_at": time, "replace": True})
    renewed = await ann.request("PATCH", f"/me/codes/{code['id']}", json={"expires_at": time})
    for response in (made, renewed):
        assert [error["pointer"] for error in errors(response)] == ["/expires_at"]


NUMBERS = [0, -1, 1.5, 1e300, 10**26, 2**31, 2**63, 2**64, "5", True, [], {}]


@pytest.mark.parametrize("number", NUMBERS, ids=map(repr, NUMBERS))
@pytest.mark.parametrize("field", ["lifetime_minutes", "max_uses"])
async def test_number_out_of_range_is_rejected(ann: Member, field: str, number: object) -> None:
    """The number never reaches the database."""
    body = {"lifetime_minutes": 60} | {field: number}
    response = await ann.request("POST", "/me/codes", json=body)
    assert [error["pointer"] for error in errors(response)] == [f"/{field}"]


CODES = [
    "ab",
    "x" * 33,
    "a b",
    "a_b",
    "abc\n",
    "äbc",
    "a/b",
    "",
    "\u212aelvin",
    "\uff11\uff12\uff13",
]


@pytest.mark.parametrize("text", CODES, ids=map(repr, CODES))
async def test_invalid_code_text_is_rejected(ann: Member, text: str) -> None:
    """A code has 3 to 32 letters, digits or hyphens of ASCII."""
    response = await ann.request("POST", "/me/codes", json={"lifetime_minutes": 60, "code": text})
    assert [error["pointer"] for error in errors(response)] == ["/code"]


@pytest.mark.parametrize("text", ["abc", "---", "A-z-0-9", "x" * 32])
async def test_code_text_is_stored_as_sent(ann: Member, text: str) -> None:
    """Letter case is kept."""
    assert (await ann.issue_code(code=text))["code"] == text
