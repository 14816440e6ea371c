"""The pages to join, log in and see the account: forms, refusals, cookies and headers."""

import asyncio
import re
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import msgspec
import pytest

from referral.core.entities.rate_limits import Rate
from referral.core.entities.users import Locale
from referral.core.use_cases.lookups import CheckCode
from referral.settings import Settings
from referral.web.pages.translations import TEXTS
from tests.conftest import ServiceFactory, fetch_value, run_service
from tests.support.api_client import API, NEW_PASSWORD, PASSWORD, join, log_in, new_email, register
from tests.support.page_forms import NAVIGATION, forms_of, log_in_on_page, send_form

EN = TEXTS[Locale.EN]
PLACEHOLDER = re.compile(r"{\w*}")


@pytest.fixture(autouse=True)
def no_cookies(client: httpx.AsyncClient) -> None:
    """Each test begins with a new browser."""
    client.cookies.clear()


async def make_code(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Return the code of a new user."""
    return await (await join(client)).issue_code(**fields)


async def log_in_member(client: httpx.AsyncClient) -> Any:
    """Log the browser of a new user in."""
    member = await join(client)
    assert (await log_in_on_page(client, member.email)).status_code == 303
    return member


def title_of(page: httpx.Response) -> str:
    """Return the heading of a page."""
    found = re.search(r"<h1>(.*)</h1>", page.text)
    assert found, page.text
    return found[1]


def test_no_text_is_missing() -> None:
    """Each catalogue has the same texts with the same placeholders, and no empty one."""
    assert set(TEXTS) == set(Locale)
    for locale in Locale:
        assert TEXTS[locale].keys() == EN.keys()
        for key, text in TEXTS[locale].items():
            assert text.strip() == text != ""
            assert PLACEHOLDER.findall(text) == PLACEHOLDER.findall(EN[key]), key
        assert len(TEXTS[locale]["months"].split()) == 12


def test_every_text_is_used() -> None:
    """A text that nothing shows is removed."""
    folder = Path(__file__).parents[2] / "src/referral/web/pages"
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".py", ".html"}
    )

    def is_used(key: str) -> bool:
        name, _, kind = key.rpartition("_")
        if kind in {"title", "message"}:  # of a page with this name
            return f'"{name}"' in sources
        return re.search(rf"""\.{key}\b|"{key}"|f"{name}_""", sources) is not None

    assert [key for key in EN if not is_used(key) and not key.startswith("status_")] == []


async def test_root_leads_to_the_landing_page(client: httpx.AsyncClient) -> None:
    """So does a share link, with the code if it is good; logged in it leads to the account."""
    assert (await client.get("/")).headers["Location"] == "/join"
    await log_in_member(client)
    assert (await client.get("/")).headers["Location"] == "/account"
    client.cookies.clear()
    code = await make_code(client)
    followed = await client.get(f"/r/{code['code']}")
    assert followed.headers["Location"] == f"http://127.0.0.1:8000/join?ref={code['code']}"
    assert (await client.get("/r/unknown")).headers["Location"] == "http://127.0.0.1:8000/join"


async def test_join_page_tells_whether_the_code_is_good(client: httpx.AsyncClient) -> None:
    """Before anything is typed, and nothing about its owner."""
    owner = await join(client)
    code = await owner.issue_code()
    good = await client.get(f"/join?ref={code['code'].lower()}")
    assert EN["join_good"] in good.text
    assert owner.email not in good.text
    assert forms_of(good)["/join"]["referral_code"] == code["code"]
    bad = await client.get("/join?ref=GONE-2026")
    assert EN["join_bad"] in bad.text
    assert forms_of(bad)["/join"]["referral_code"] == ""
    plain = await client.get("/join")
    assert EN["join_good"] not in plain.text
    assert EN["join_bad"] not in plain.text


async def test_joining_credits_the_code(client: httpx.AsyncClient) -> None:
    """The last page says to look into the mailbox, and the language is that of the browser."""
    owner = await join(client)
    code = await owner.issue_code()
    email = new_email()
    client.headers["Accept-Language"] = "ru"
    done = await send_form(client, f"/join?ref={code['code']}", email=email, password=PASSWORD)
    assert (done.status_code, done.headers["Location"]) == (303, "/join/done")
    page = await client.get(done.headers["Location"])
    assert TEXTS[Locale.RU]["joined_ready_title"] == title_of(page)
    assert "почту" in page.text
    del client.headers["Accept-Language"]
    [referral] = (await owner.request("GET", "/me/referrals")).json()["items"]
    assert (referral["email"], referral["code"]) == (email, code["code"])


async def test_confirmation_is_announced_where_it_is_required(
    serve: ServiceFactory, settings: Settings
) -> None:
    """People look into their mailbox next."""
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        await send_form(client, "/join", email=new_email(), password=PASSWORD)
        assert title_of(await client.get("/join/done")) == "Look into your mailbox"


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"email": "no address"}, 422, "invalid_email"),
        ({"email": ""}, 422, "invalid_email"),
        ({"email": "taken"}, 409, "email_taken"),
        ({"password": "short"}, 422, "weak_password"),
        ({"password": ""}, 422, "weak_password"),
        ({"referral_code": "GONE-2026"}, 422, "code_unusable"),
        ({"referral_code": "<script>"}, 422, "code_unusable"),
        ({"email": '"><script>alert(1)</script>'}, 422, "invalid_email"),
    ],
)
async def test_join_form_keeps_what_was_typed(
    client: httpx.AsyncClient, changed: dict[str, str], status: int, error: str
) -> None:
    """But the password; the error is beside its field, and no account is made."""
    code, taken = await make_code(client), new_email()
    await register(client, taken)
    email = new_email()
    fields = {"email": email, "password": PASSWORD} | changed
    fields["email"] = taken if fields["email"] == "taken" else fields["email"]
    refused = await send_form(client, f"/join?ref={code['code']}", **fields)
    assert refused.status_code == status
    assert refused.headers["Content-Type"].startswith("text/html")
    assert EN[error] in refused.text
    [invalid] = re.findall(r'aria-invalid="true"', refused.text)
    assert invalid
    kept = forms_of(refused)["/join"]
    assert kept["email"] == fields["email"]
    assert kept["password"] == ""
    assert kept["referral_code"] == fields.get("referral_code", code["code"])
    assert "<script>" not in refused.text
    assert (await log_in(client, email)).status_code == 400


async def test_join_form_counts_once(client: httpx.AsyncClient, database_url: str) -> None:
    """Sent twenty times at once or again later, it makes one account and queues one mail."""
    email, page = new_email(), await client.get("/join")
    form = forms_of(page)["/join"] | {"email": email, "password": PASSWORD}
    sent = [client.post("/join", data=form, headers=NAVIGATION) for _ in range(20)]
    responses = [*await asyncio.gather(*sent)]
    responses.append(await client.post("/join", data=form, headers=NAVIGATION))
    assert {response.status_code for response in responses} <= {303, 409}
    assert responses[-1].headers["Location"] == "/join/done"
    query = "SELECT count(*) FROM users WHERE email = $1"
    assert await fetch_value(database_url, query, email) == 1


async def test_wrong_login_is_refused(client: httpx.AsyncClient) -> None:
    """The same for an unknown address and a wrong password; the address is kept."""
    member = await join(client)
    pages = []
    for email, password in ((member.email, "wrong"), (new_email(), PASSWORD), (member.email, "")):
        refused = await send_form(client, "/login", email=email, password=password)
        assert refused.status_code == 422
        assert EN["login_failed"] in refused.text
        assert forms_of(refused)["/login"]["email"] == email
        assert "login" not in refused.cookies
        pages.append(re.sub(r'value="[^"]*"', "", refused.text))
    assert len(set(pages)) == 1


@pytest.mark.parametrize(
    "query",
    [
        "next=https://evil.example",
        "next=//evil.example",
        "return_to=https%3A%2F%2Fevil.example",
        "https://evil.example",
        "utm_source=mail",
    ],
)
async def test_login_leads_to_no_other_site(client: httpx.AsyncClient, query: str) -> None:
    """A query that is no authorization request is ignored, before and after the login."""
    member = await join(client)
    page = await client.get(f"/login?{query}")
    assert forms_of(page).keys() == {"/login"}
    assert 'action="/login"' in page.text
    assert "evil.example" not in page.text
    logged_in = await log_in_on_page(client, member.email, query=query)
    assert (logged_in.status_code, logged_in.headers["Location"]) == (303, "/account")
    again = await client.get(f"/login?{query}")
    assert (again.status_code, again.headers["Location"]) == (303, "/account")


async def test_login_cookie_is_protected(
    client: httpx.AsyncClient, serve: ServiceFactory, settings: Settings
) -> None:
    """From scripts and other sites; under https also from the network and other host names."""
    member = await join(client)
    plain = await log_in_on_page(client, member.email)
    [cookie] = plain.headers.get_list("Set-Cookie")
    assert re.fullmatch(r"login=[\w-]{43}; HttpOnly; Path=/; SameSite=lax", cookie)
    https = msgspec.structs.replace(settings, public_url="https://referral.example.com")
    async with serve(https) as secure:
        other = await join(secure)
        page = await secure.get("/login")
        [form_cookie] = page.headers.get_list("Set-Cookie")
        logged_in = await log_in_on_page(secure, other.email)
        [login_cookie] = logged_in.headers.get_list("Set-Cookie")
        for name, sent in (("form", form_cookie), ("login", login_cookie)):
            assert sent.startswith(f"__Host-{name}=")
            assert set(sent.split("; ")[1:]) == {"HttpOnly", "Path=/", "SameSite=lax", "Secure"}
        assert (await secure.get("/account")).status_code == 200


async def test_login_session_rotates_and_ends(client: httpx.AsyncClient) -> None:
    """A login makes a new cookie and ends the old session; a log-out ends it on the server."""
    member = await log_in_member(client)
    first = client.cookies["login"]
    again = await client.get("/login")
    assert (again.status_code, again.headers["Location"]) == (303, "/account")
    client.cookies.delete("login")
    form = forms_of(await client.get("/login"))["/login"]
    client.cookies.set("login", first, domain="127.0.0.1")
    fields = form | {"email": member.email, "password": PASSWORD}
    await client.post("/login", data=fields, headers=NAVIGATION)
    second = client.cookies["login"]
    assert second != first
    client.cookies.clear()
    for token, status in ((first, 303), (second, 200)):
        page = await client.get("/account", headers={"Cookie": f"login={token}"})
        assert page.status_code == status
    client.cookies.set("login", second, domain="127.0.0.1")
    left = await send_form(client, "/logout")
    assert (left.status_code, title_of(left)) == (200, EN["logged_out_title"])
    assert left.headers["Set-Cookie"].startswith("login=; ")
    assert "Max-Age=0" in left.headers["Set-Cookie"]
    gone = await client.get("/account", headers={"Cookie": f"login={second}"})
    assert (gone.status_code, gone.headers["Location"]) == (303, "/login?session=ended")
    assert (await client.post("/logout", headers=NAVIGATION)).status_code == 200


async def test_new_password_ends_the_login(client: httpx.AsyncClient) -> None:
    """So the page asks for it, and says why."""
    member = await log_in_member(client)
    form = forms_of(await client.get("/account"))["/account/codes"]
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await member.request("PUT", "/me/password", json=body)
    token = client.cookies["login"]
    for method, path in (("GET", "/account"), ("POST", "/account/codes")):
        client.cookies.set("login", token, domain="127.0.0.1")
        ended = await client.request(method, path, data=form, headers=NAVIGATION)
        assert (ended.status_code, ended.headers["Location"]) == (303, "/login?session=ended")
    assert "login" not in client.cookies
    assert EN["login_ended"] in (await client.get("/login?session=ended")).text
    refused = await log_in_on_page(client, member.email, PASSWORD, query="session=ended")
    assert EN["login_failed"] in refused.text
    assert EN["login_ended"] not in refused.text
    logged_in = await log_in_on_page(client, member.email, NEW_PASSWORD, query="session=ended")
    assert logged_in.headers["Location"] == "/account"


USER_FORMS = {
    "/account/codes": {"expires_at": "2099-01-01T00:00:00+00:00"},
    "/account/renew": {},
    "/account/deactivate": {},
    "/account/locale": {"locale": "ru"},
    "/account/notifications": {"notify_on_referral": "off"},
    "/account/confirmation-mail": {},
    "/logout": {},
}
ANONYMOUS_FORMS: dict[str, dict[str, str]] = {
    "/login": {"password": PASSWORD},
    "/join": {"password": PASSWORD},
    "/forgot": {},
}
LINK_FORMS = ("/confirm", "/disown", "/reset")
OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:8001"},
    {"Origin": "http://127.0.0.1:8000.evil.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("path", [*USER_FORMS, *ANONYMOUS_FORMS, *LINK_FORMS])
async def test_form_of_another_site_is_refused(client: httpx.AsyncClient, path: str) -> None:
    """Even with the right token, as a page of 403; nothing changes."""
    member = await log_in_member(client)
    fields = {"form_token": "x", "token": "x", "email": member.email}
    fields |= USER_FORMS.get(path, {}) | ANONYMOUS_FORMS.get(path, {})
    if path in ANONYMOUS_FORMS:
        fields |= await _anonymous_form(client, path)
    elif path in USER_FORMS:
        fields |= {"form_token": forms_of(await client.get("/account"))["/logout"]["form_token"]}
    for headers in OTHER_SITES:
        refused = await client.post(path, data=fields, headers=headers)
        assert (refused.status_code, title_of(refused)) == (403, EN["cross_site_title"]), headers
        assert "Set-Cookie" not in refused.headers
    me = (await member.request("GET", "/me")).json()
    assert (me["locale"], me["notify_on_referral"], me["active_code"]) == ("en", True, None)
    assert (await client.get("/account")).status_code == 200


async def _anonymous_form(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    token = client.cookies.pop("login")
    form = forms_of(await client.get(path))[path]
    client.cookies["login"] = token
    return {name: form[name] for name in ("form_token", "form_id") if name in form}


async def test_allowed_origin_of_cors_cannot_send_forms(
    serve: ServiceFactory, settings: Settings
) -> None:
    """An application that may call the API is another site for the pages."""
    origin = "https://shop.example.com"
    async with serve(msgspec.structs.replace(settings, cors_origins=(origin,))) as client:
        for sent in (origin, "https://evil.example"):
            for path in ("/login", "/reset"):
                refused = await client.post(path, data={"x": "y"}, headers={"Origin": sent})
                assert refused.status_code == 403, (sent, path)


@pytest.mark.parametrize("path", [*USER_FORMS, *ANONYMOUS_FORMS])
async def test_form_needs_its_token(client: httpx.AsyncClient, path: str) -> None:
    """Without, with a wrong one, with another browser's, and without the cookie."""
    member = await log_in_member(client)
    fields = {"email": member.email} | USER_FORMS.get(path, {}) | ANONYMOUS_FORMS.get(path, {})
    other = forms_of(await client.get("/account"))["/logout"]["form_token"]
    if path in USER_FORMS:
        other = (await _anonymous_form(client, "/login"))["form_token"]
    for token in ({}, {"form_token": "x"}, {"form_token": "ü"}, {"form_token": other}):
        refused = await client.post(path, data=fields | token, headers=NAVIGATION)
        assert (refused.status_code, title_of(refused)) == (403, EN["cross_site_title"])
    if path in ANONYMOUS_FORMS:
        form = await _anonymous_form(client, path)
        client.cookies.clear()
        refused = await client.post(path, data=fields | form, headers=NAVIGATION)
        assert refused.status_code == 403


async def test_forms_work_for_browsers_without_fetch_metadata(client: httpx.AsyncClient) -> None:
    """By `Origin`, or by the token alone."""
    member = await join(client)
    for headers in ({}, {"Origin": "http://127.0.0.1:8000"}, {"Sec-Fetch-Site": "none"}):
        client.cookies.clear()
        form = forms_of(await client.get("/login"))["/login"]
        fields = form | {"email": member.email, "password": PASSWORD}
        assert (await client.post("/login", data=fields, headers=headers)).status_code == 303


@pytest.mark.parametrize("path", [*USER_FORMS, "/account"])
async def test_account_needs_a_login(client: httpx.AsyncClient, path: str) -> None:
    """Whoever is not logged in comes to the login page."""
    if path == "/account":
        page = await client.get(path)
    else:
        page = await client.post(path, data={"form_token": "x"}, headers=NAVIGATION)
    if path == "/logout":
        assert page.status_code == 200
    else:
        assert (page.status_code, page.headers["Location"]) == (303, "/login")


async def test_code_is_made_renewed_and_switched_off(client: httpx.AsyncClient) -> None:
    """On the account page, by its forms."""
    member = await log_in_member(client)
    made = await send_form(client, "/account", "/account/codes", code="ANN-PAGE", max_uses="3")
    assert made.status_code == 303, made.text
    code = (await member.request("GET", "/me")).json()["active_code"]
    assert (code["code"], code["max_uses"]) == ("ANN-PAGE", 3)
    page = await client.get("/account")
    assert "http://127.0.0.1:8000/r/ANN-PAGE" in page.text
    assert EN["code_uses_of"].format(uses=0, max=3) in page.text
    assert "/account/codes" not in forms_of(page)
    for path, kind in (("/account/qr.svg", "image/svg+xml"), ("/account/qr.png", "image/png")):
        image = await client.get(path)
        assert (image.status_code, image.headers["Content-Type"]) == (200, kind)
    renewal = re.findall(r'<option value="(\S+)"', page.text)[3]
    renewed = await send_form(client, "/account", "/account/renew", expires_at=renewal)
    assert renewed.status_code == 303
    later = (await member.request("GET", "/me")).json()["active_code"]["expires_at"]
    assert later > code["expires_at"]
    off = await send_form(client, "/account", "/account/deactivate")
    assert off.status_code == 303
    assert (await member.request("GET", "/me")).json()["active_code"] is None
    assert EN["code_none"] in (await client.get("/account")).text
    assert (await client.get("/account/qr.svg")).status_code == 404


async def test_forms_of_the_account_count_once(client: httpx.AsyncClient) -> None:
    """Sending one again changes nothing more."""
    member = await log_in_member(client)
    form = forms_of(await client.get("/account"))["/account/codes"]
    sent = [client.post("/account/codes", data=form, headers=NAVIGATION) for _ in range(10)]
    responses = [*await asyncio.gather(*sent)]
    responses.append(await client.post("/account/codes", data=form, headers=NAVIGATION))
    assert {response.status_code for response in responses} <= {303, 409}
    assert responses[-1].headers["Location"] == "/account"
    assert len((await member.request("GET", "/me/codes")).json()["items"]) == 1
    for action in ("/account/renew", "/account/deactivate"):
        form = forms_of(await client.get("/account"))[action]
        found = []
        for _ in range(2):
            again = await client.post(action, data=form, headers=NAVIGATION)
            assert again.status_code == 303
            found.append((await member.request("GET", "/me/codes")).json())
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"code": "a b"}, 422, "code_text_invalid"),
        ({"code": "ab"}, 422, "code_text_invalid"),
        ({"code": "TAKEN"}, 409, "code_text_taken"),
        ({"max_uses": "0"}, 422, "code_max_uses_invalid"),
        ({"max_uses": "many"}, 422, "code_max_uses_invalid"),
        ({"max_uses": "9" * 13}, 422, "code_max_uses_invalid"),
        ({"max_uses": "9" * 12}, 422, "code_max_uses_invalid"),
        ({"max_uses": "\u0663"}, 422, "code_max_uses_invalid"),
        ({"expires_at": ""}, 422, "code_expiry_invalid"),
        ({"expires_at": "soon"}, 422, "code_expiry_invalid"),
        ({"expires_at": "2999-01-01T00:00:00"}, 422, "code_expiry_invalid"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, 422, "code_expiry_invalid"),
    ],
)
async def test_wrong_code_is_refused_beside_its_field(
    client: httpx.AsyncClient, changed: dict[str, str], status: int, error: str
) -> None:
    """The page keeps what was typed."""
    other, taken = await join(client), f"T{new_email()[1:20]}"
    await other.issue_code(code=taken)
    await log_in_member(client)
    sent = {name: taken if value == "TAKEN" else value for name, value in changed.items()}
    refused = await send_form(client, "/account", "/account/codes", **sent)
    assert refused.status_code == status
    assert EN[error] in refused.text
    for name in ("code", "max_uses"):
        assert forms_of(refused)["/account/codes"][name] == sent.get(name, "")


async def test_code_of_somebody_else_cannot_be_changed(client: httpx.AsyncClient) -> None:
    """The page says 404, and the code stays."""
    other = await join(client)
    code = await other.issue_code()
    await log_in_member(client)
    form = forms_of(await client.get("/account"))["/logout"] | {"code_id": code["id"]}
    form["expires_at"] = "2027-01-01T00:00:00Z"
    for action in ("/account/renew", "/account/deactivate"):
        refused = await client.post(action, data=form, headers=NAVIGATION)
        assert refused.status_code == 404
        malformed = form | {"code_id": "x"}
        assert (await client.post(action, data=malformed, headers=NAVIGATION)).status_code == 422
        assert EN["code_gone"] in refused.text
    assert (await other.request("GET", "/me")).json()["active_code"] == code


async def test_account_shows_who_joined(client: httpx.AsyncClient) -> None:
    """The newest ten, and everybody page by page."""
    member = await log_in_member(client)
    code = await member.issue_code()
    emails = [new_email() for _ in range(12)]
    for email in emails:
        await register(client, email, referral_code=code["code"])
    page = await client.get("/account")
    assert EN["referrals_count"].format(count=12) in page.text
    assert [email in page.text for email in emails] == [False] * 2 + [True] * 10
    everybody = await client.get("/account/referrals")
    assert all(email in everybody.text for email in emails)
    assert (await client.get("/account/referrals?after=x")).status_code == 200
    nobody = await client.get("/account/referrals?after=00000000-0000-7000-8000-000000000000")
    assert EN["referrals_none"] in nobody.text


async def test_code_of_another_tab_is_shown(client: httpx.AsyncClient) -> None:
    """The form that was open meanwhile is refused, above the code that is there."""
    member = await log_in_member(client)
    form = forms_of(await client.get("/account"))["/account/codes"]
    code = await member.issue_code()
    refused = await client.post("/account/codes", data=form, headers=NAVIGATION)
    assert refused.status_code == 409
    assert f'role="alert">{EN["code_exists"]}<' in refused.text
    assert 'aria-invalid="true"' not in refused.text
    assert code["code"] in refused.text


async def test_account_turns_mails_off_and_on(client: httpx.AsyncClient) -> None:
    """As the page after an unsubscribe link promises."""
    member = await log_in_member(client)
    for expected in (False, True):
        assert (await send_form(client, "/account", "/account/notifications")).status_code == 303
        me = (await member.request("GET", "/me")).json()
        assert me["notify_on_referral"] is expected


async def test_account_sets_the_language(client: httpx.AsyncClient) -> None:
    """Of the account page and of mails; the other pages follow the browser."""
    member = await log_in_member(client)
    await send_form(client, "/account", "/account/locale", locale="ru")
    assert (await member.request("GET", "/me")).json()["locale"] == "ru"
    page = await client.get("/account", headers={"Accept-Language": "en"})
    assert '<html lang="ru">' in page.text
    assert title_of(page) == TEXTS[Locale.RU]["account_title"]
    forgot = await client.get("/forgot", headers={"Accept-Language": "en"})
    assert '<html lang="en">' in forgot.text
    refused = await send_form(client, "/account", "/account/locale", locale="de")
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("", "en"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        ("de, ru;q=0.5, en;q=0.8", "en"),
        ("ru;q=0, en;q=0.1", "en"),
        ("ru;q=x", "en"),
        ("*", "en"),
    ],
)
async def test_language_follows_the_browser(
    client: httpx.AsyncClient, header: str, locale: str
) -> None:
    """By the weights of `Accept-Language`."""
    page = await client.get("/login", headers={"Accept-Language": header})
    assert f'<html lang="{locale}">' in page.text


async def test_unconfirmed_user_can_ask_for_the_mail_again(
    serve: ServiceFactory, settings: Settings
) -> None:
    """The account page says that the address is not confirmed."""
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        await log_in_member(client)
        assert EN["account_unconfirmed"] in (await client.get("/account")).text
        sent = await send_form(client, "/account", "/account/confirmation-mail")
        assert (sent.status_code, sent.headers["Location"]) == (303, "/account/mail-sent")
        page = await client.get("/account/mail-sent")
        assert title_of(page) == "Look into your mailbox"


async def test_forgot_says_the_same_for_everybody(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """Sent twice, the form queues one mail; an invalid address is refused."""
    member = await join(client)
    count = "SELECT count(*) FROM pgqueuer WHERE entrypoint = 'reset-mail'"
    before = await fetch_value(database_url, count)
    form = forms_of(await client.get("/forgot"))["/forgot"] | {"email": member.email}
    for _ in range(2):
        sent = await client.post("/forgot", data=form, headers=NAVIGATION)
        assert (sent.status_code, sent.headers["Location"]) == (303, "/forgot/sent")
    assert await fetch_value(database_url, count) == before + 1  # type: ignore[operator]
    unknown = await send_form(client, "/forgot", email=new_email())
    assert unknown.headers["Location"] == "/forgot/sent"
    assert title_of(await client.get("/forgot/sent")) == "Look into your mailbox"
    refused = await send_form(client, "/forgot", email="nobody")
    assert refused.status_code == 422
    assert EN["invalid_email"] in refused.text


PAGES = ("/login", "/join", "/join?ref=X", "/join/done", "/forgot", "/forgot/sent", "/logout")
USER_PAGES = ("/account", "/account/referrals", "/account/mail-sent", "/logout")


async def test_pages_are_neither_cached_nor_framed(client: httpx.AsyncClient) -> None:
    """They name this site to itself only, and run no script but their own."""
    responses = [await client.get(path) for path in PAGES]
    member = await log_in_member(client)
    await member.issue_code()
    responses += [await client.get(path) for path in USER_PAGES]
    for page in responses:
        assert page.status_code == 200, page.url
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert "Cross-Origin-Opener-Policy" not in page.headers
        policy = page.headers["Content-Security-Policy"]
        for directive in (
            "default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"
        ):  # fmt: skip
            assert directive in policy.split("; ")
        assert "unsafe" not in policy
        assert re.findall(r'(?:src|href|action)="(?!/|http://127\.0\.0\.1:8000/)', page.text) == []


async def test_browser_gets_a_page_for_an_unknown_path(client: httpx.AsyncClient) -> None:
    """Other clients, and paths of the API, get problem details; a wrong method has `Allow`."""
    accept = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    page = await client.get("/acount", headers=accept)
    assert (page.status_code, title_of(page)) == (404, EN["missing_title"])
    assert page.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    wrong = await client.post("/forgot/sent", headers=accept)
    assert (wrong.status_code, title_of(wrong)) == (405, EN["missing_title"])
    assert "GET" in wrong.headers["Allow"]
    for path, headers in (("/acount", {}), (f"{API}/acount", accept)):
        problem = await client.get(path, headers=headers)
        assert (problem.status_code, problem.json()["code"]) == (404, "not-found")


async def test_failure_is_a_page(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cause is in the log only."""
    failure = AsyncMock(side_effect=RuntimeError("the cause"))
    monkeypatch.setattr(CheckCode, "__call__", failure)
    page = await client.get("/join")
    assert (page.status_code, title_of(page)) == (500, EN["failed_title"])
    assert "the cause" not in page.text
    output = capsys.readouterr()
    assert "the cause" in output.out + output.err


@pytest.mark.parametrize("path", ["/login", "/join", "/forgot", "/account/codes"])
async def test_malformed_form_is_a_page(client: httpx.AsyncClient, path: str) -> None:
    """No JSON, no bytes that are no text, no thousand fields, and no megabyte."""
    await log_in_member(client)
    kind = "application/x-www-form-urlencoded"
    bodies: list[tuple[bytes, str, int]] = [
        (b"{}", "application/json", 400),
        (b"email=%ff", kind, 400),
        (b"\xff", kind, 400),
        (b"&".join(b"a=b" for _ in range(1000)), kind, 400),
        (b"a" * 70_000, kind, 413),
        (b"", kind, 403),
    ]
    for body, media_type, status in bodies:
        headers = NAVIGATION | {"Content-Type": media_type}
        refused = await client.post(path, content=body, headers=headers)
        assert refused.status_code == status
        assert refused.headers["Content-Type"].startswith("text/html")


async def test_logins_on_the_page_are_limited(serve: ServiceFactory, settings: Settings) -> None:
    """As at the token endpoint, with the same counter; the page says how long to wait."""
    limited = msgspec.structs.replace(settings, limit_token=Rate.parse("4/minute"))
    async with serve(limited) as client:
        statuses = []
        for _ in range(2):
            await log_in(client, "nobody@example.com")
        for _ in range(3):
            refused = await send_form(
                client, "/login", email="a@example.com", password=NEW_PASSWORD
            )
            statuses.append(refused.status_code)
        assert statuses == [422, 422, 429]
        assert title_of(refused) == EN["too_many_requests_title"]
        assert int(refused.headers["Retry-After"]) <= 60
        assert (await client.get("/login")).status_code == 200


async def test_codes_are_not_guessed_on_the_join_page(
    serve: ServiceFactory, settings: Settings
) -> None:
    """It counts with the look-ups."""
    limited = msgspec.structs.replace(settings, limit_lookup=Rate.parse("2/minute"))
    async with serve(limited) as client:
        statuses = [(await client.get(f"/join?ref=GUESS-{n}")).status_code for n in range(3)]
        assert statuses == [200, 200, 429]
        assert (await client.get("/join")).status_code == 200


async def test_pages_survive_an_outage_of_the_database(settings: Settings) -> None:
    """They answer 503 as a page, and say when to come back."""
    gone = msgspec.structs.replace(settings, database_url="postgresql://127.0.0.1:9/none")
    async with run_service(gone) as client:
        client.cookies["login"] = "x"
        for path in ("/account", "/login", "/join?ref=CODE"):
            page = await client.get(path)
            assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
            assert title_of(page) == EN["unavailable_title"]


async def test_account_is_an_api_caller_by_no_means(client: httpx.AsyncClient) -> None:
    """The cookie opens no route of the API."""
    await log_in_member(client)
    assert (await client.get(f"{API}/me")).status_code == 401
    token = client.cookies["login"]
    headers = {"Authorization": f"Bearer {token}"}
    assert (await client.get(f"{API}/me", headers=headers)).status_code == 401
