"""No input whatever gets a 5xx: it is refused in words, or taken exactly as it is."""

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from tests.support.api_client import Member, join, register
from tests.web.injection_points import HOSTILE_TEXTS, INJECTION_POINTS, BuildRequest, send


@pytest.fixture
async def ann(client: httpx.AsyncClient) -> Member:
    """Someone who is signed in."""
    return await join(client)


def errors(answer: httpx.Response) -> list[dict[str, str]]:
    """Return the faults of an `invalid-request`."""
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("/invalid-request")
    found: list[dict[str, str]] = answer.json()["errors"]
    return found


@pytest.mark.parametrize("place", INJECTION_POINTS.values(), ids=INJECTION_POINTS)
async def test_no_text_breaks_the_service(ann: Member, place: BuildRequest) -> None:
    """Whatever text comes, the answer is no 5xx, and a refusal is in its proper form."""
    for name, text in HOSTILE_TEXTS.items():
        answer = await send(ann, place, text)
        assert answer.status_code < 500, (name, answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] in FORMS, (name, answer.headers)
            assert answer.json(), name


TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),  # of all planes and categories, half pairs among them
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"]), max_size=12),
    st.text(st.characters(categories=["Mn", "Me", "Nl", "No", "So", "Sk"]), max_size=40),
    st.text("\\'\"`%{}[]()<>&;|$#@!~^*=+-/?:,. \t\r\n\0", max_size=40),
    st.sampled_from(sorted(HOSTILE_TEXTS)).flatmap(lambda name: st.just(HOSTILE_TEXTS[name] * 3)),
    st.integers().map(str),
    st.floats().map(str),
)
"""A big list of naughty strings that nobody has written down."""


@pytest.mark.parametrize("place", INJECTION_POINTS.values(), ids=INJECTION_POINTS)
@how(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one account does for all
)
@given(text=TEXTS)
async def test_no_made_up_text_breaks_the_service(
    ann: Member, place: BuildRequest, text: str
) -> None:
    """Texts of every category, the same ones each time."""
    answer = await send(ann, place, text)
    assert answer.status_code < 500, answer.text
    assert answer.is_success or answer.is_redirect or answer.json()


FORMS = ("application/problem+json", "application/json")


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS)
async def test_an_address_is_refused_or_kept_as_typed(ann: Member, text: str) -> None:
    """No address is changed on the way in, and none that was taken is dangerous in a mail."""
    address = text if "@" in text else f"x{text}@example.com"
    answer = await send(ann, INJECTION_POINTS["register email"], address)
    if answer.status_code != 201:
        assert answer.status_code in {400, 409, 422}, answer.text
        return
    assert answer.json()["email"] == address
    assert address.isprintable()
    assert "=?" not in address


@pytest.mark.parametrize("text", ["a\nb@example.com", "a@exa\rmple.com", "a@example.com\n"])
async def test_an_address_cannot_break_a_line(client: httpx.AsyncClient, text: str) -> None:
    """A line break in an address would write mail headers."""
    assert [fault["pointer"] for fault in errors(await register(client, text))] == ["/email"]


@pytest.mark.parametrize("path", ["/me/codes", "/me/referrals"])
@pytest.mark.parametrize(
    "limit",
    ["0", "101", "-1", "+1", "1e1", "1.0", " 5", "5 ", "\uff15", "0x5", "1_0", "", "1000", "x"],
)
async def test_a_limit_is_a_number_from_1_to_100(ann: Member, path: str, limit: str) -> None:
    """Digits and nothing else, whatever Python would read as a number."""
    answer = await ann.request("GET", path, params={"limit": limit})
    assert [fault["parameter"] for fault in errors(answer)] == ["limit"]


@pytest.mark.parametrize("limit", ["1", "100", "007"])
async def test_a_limit_within_the_bounds_is_taken(ann: Member, limit: str) -> None:
    """Both ends belong to the range."""
    answer = await ann.request("GET", "/me/codes", params={"limit": limit})
    assert answer.status_code == 200


@pytest.mark.parametrize("query", ["limit=5&limit=x", "cursor=&cursor=x", "status=x&status=x"])
async def test_a_parameter_sent_twice_does_no_harm(ann: Member, query: str) -> None:
    """It is one parameter, and still has to be right."""
    name = query.partition("=")[0]
    answer = await ann.request("GET", f"/me/codes?{query}")
    assert [fault["parameter"] for fault in errors(answer)] == [name]


@pytest.mark.parametrize("path", ["/me/codes", "/me/referrals"])
async def test_an_unknown_status_is_refused(ann: Member, path: str) -> None:
    """A filter that means nothing is not ignored."""
    answer = await ann.request("GET", path, params={"status": "gone"})
    assert [fault["parameter"] for fault in errors(answer)] == ["status"]


async def cursor_of(member: Member, path: str = "/me/codes") -> str:
    """Return the cursor of a list's second page."""
    for _ in range(2):
        await member.issue_code(activate=False)
    cursor = (await member.request("GET", path, params={"limit": 1})).json()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


async def test_a_cursor_leads_to_the_next_page(ann: Member) -> None:
    """The one that the service made for this list is good."""
    cursor = await cursor_of(ann)
    page = await ann.request("GET", "/me/codes", params={"limit": 1, "cursor": cursor})
    assert len(page.json()["items"]) == 1
    assert page.json()["next_cursor"] is None


@pytest.mark.parametrize("garbage", ["", "x", "AAAA", "=", "A" * 32, "A" * 5000, "ü", "\0"])
async def test_a_made_up_cursor_is_refused(ann: Member, garbage: str) -> None:
    """A cursor is opaque; what the service did not make is 422."""
    answer = await ann.request("GET", "/me/codes", params={"cursor": garbage})
    assert [fault["parameter"] for fault in errors(answer)] == ["cursor"]


@pytest.mark.parametrize("change", ["changed", "longer", "padded"])
async def test_a_cursor_that_was_changed_is_refused(ann: Member, change: str) -> None:
    """One cannot look for places in a list by turning a cursor's bits."""
    cursor = await cursor_of(ann)
    first = "A" if cursor[0] != "A" else "B"
    odd = {"changed": first + cursor[1:], "longer": cursor + "A", "padded": cursor + "=="}[change]
    answer = await ann.request("GET", "/me/codes", params={"cursor": odd})
    assert [fault["parameter"] for fault in errors(answer)] == ["cursor"]


async def test_a_cursor_of_another_list_is_refused(ann: Member) -> None:
    """A cursor fits the list it came from, with the filter it came with."""
    cursor = await cursor_of(ann)
    for path, filters in [("/me/referrals", {}), ("/me/codes", {"status": "active"})]:
        answer = await ann.request("GET", path, params={"cursor": cursor} | filters)
        assert [fault["parameter"] for fault in errors(answer)] == ["cursor"]


async def test_a_cursor_of_another_user_is_refused(ann: Member, client: httpx.AsyncClient) -> None:
    """A cursor fits nobody else's list."""
    bob = await join(client)
    answer = await bob.request("GET", "/me/codes", params={"cursor": await cursor_of(ann)})
    assert [fault["parameter"] for fault in errors(answer)] == ["cursor"]


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
async def test_a_time_that_is_none_or_out_of_range_is_refused(ann: Member, time: str | int) -> None:
    """A code ends between a minute and a year ahead, at a time that is one instant everywhere."""
    code = await ann.issue_code()
    made = await ann.request("POST", "/me/codes", json={"expires_at": time, "replace": True})
    renewed = await ann.request("PATCH", f"/me/codes/{code['id']}", json={"expires_at": time})
    for answer in (made, renewed):
        assert [fault["pointer"] for fault in errors(answer)] == ["/expires_at"]


NUMBERS = [0, -1, 1.5, 1e300, 10**26, 2**31, 2**63, 2**64, "5", True, [], {}]


@pytest.mark.parametrize("number", NUMBERS, ids=map(repr, NUMBERS))
@pytest.mark.parametrize("field", ["lifetime_minutes", "max_uses"])
async def test_a_number_out_of_range_is_refused(ann: Member, field: str, number: object) -> None:
    """Neither the database nor the calendar ever sees it."""
    body = {"lifetime_minutes": 60} | {field: number}
    answer = await ann.request("POST", "/me/codes", json=body)
    assert [fault["pointer"] for fault in errors(answer)] == [f"/{field}"]


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
async def test_a_wording_out_of_the_alphabet_is_refused(ann: Member, text: str) -> None:
    """3 to 32 of A-Z a-z 0-9 and the hyphen."""
    answer = await ann.request("POST", "/me/codes", json={"lifetime_minutes": 60, "code": text})
    assert [fault["pointer"] for fault in errors(answer)] == ["/code"]


@pytest.mark.parametrize("text", ["abc", "---", "A-z-0-9", "x" * 32])
async def test_a_wording_is_kept_as_it_was_sent(ann: Member, text: str) -> None:
    """Capitals or not, it is the owner's wording."""
    assert (await ann.issue_code(code=text))["code"] == text
