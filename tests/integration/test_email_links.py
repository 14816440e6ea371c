"""Links in e-mails: confirmation, disowning and password reset, with SMTP and a real database."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from markupsafe import escape
from msgspec.structs import replace

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.keys import KeyRing
from referral.adapters.security.unsubscribe_tokens import SignedUnsubscribeTokens
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory, execute, fetch_value, run_service
from tests.support.api_client import API, NEW_PASSWORD, PASSWORD, join, log_in, new_email, register
from tests.support.fakes.system import FakeClock
from tests.support.smtp_sink import ReceivedMail, SmtpSink
from tests.support.waiting import wait_for_value, wait_until

CONFIRM_SUBJECT = "Confirm your e-mail address"
REFERRED_SUBJECT = "Someone joined with your code"


@pytest.fixture
async def worker_settings(settings: Settings, sink: SmtpSink, database_url: str) -> Settings:
    """Settings of a service that sends e-mail to the sink and verifies e-mails."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return replace(settings, smtp_url=sink.url, worker="inline", email_verification="on")


@pytest.fixture
async def service(worker_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service."""
    async with run_service(worker_settings) as client:
        yield client


def problem_slug(response: httpx.Response) -> str:
    """Return the slug of the problem type."""
    return str(response.json()["type"]).rpartition("/")[2]


def token_of(mail: ReceivedMail) -> str:
    """Return the token of the link in an e-mail; text and HTML have the same link."""
    pattern = r"http://127\.0\.0\.1:8000/(?:confirm|reset)\?token=([\w-]{43})"
    plain = re.findall(pattern, mail.part("plain"))
    assert set(re.findall(pattern, unescape(mail.part("html")))) == set(plain)
    assert len(plain) == 1
    return str(plain[0])


async def wait_for_mails(sink: SmtpSink, email: str, number: int) -> list[ReceivedMail]:
    """Wait until the recipient has so many e-mails, and return them."""
    await wait_until(lambda: len(sink.mails_to(email)) >= number)
    return sink.mails_to(email)


async def final_subjects(sink: SmtpSink, email: str, database_url: str) -> list[str]:
    """Return the sorted subjects of the recipient's e-mails, once the queue is empty."""

    async def is_empty() -> bool:
        return await fetch_value(database_url, "SELECT count(*) FROM pgqueuer") == 0

    await wait_for_value(is_empty)
    return sorted(str(mail.message["Subject"]) for mail in sink.mails_to(email))


async def confirm(
    client: httpx.AsyncClient, token: str, password: str | None = PASSWORD, **rest: Any
) -> httpx.Response:
    """Confirm an e-mail with the token of a link."""
    body = {"token": token} | ({} if password is None else {"password": password})
    return await client.post(f"{API}/auth/email/confirm", json=body, **rest)


async def disown(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Disown an account with the token of a link."""
    return await client.post(f"{API}/auth/email/disown", json={"token": token})


async def request_reset(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Request a link to reset the password."""
    return await client.post(f"{API}/auth/password/forgot", json={"email": email})


async def reset(
    client: httpx.AsyncClient, token: str, password: str = NEW_PASSWORD
) -> httpx.Response:
    """Set a new password with the token of a link."""
    body = {"token": token, "new_password": password}
    return await client.post(f"{API}/auth/password/reset", json=body)


async def test_referral_counts_when_the_email_is_confirmed(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The referral is pending before the link is used; then both users get an e-mail."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    bob = await join(service, referral_code=code)
    (mail,) = await wait_for_mails(sink, bob.email, 1)
    assert mail.message["Subject"] == "Confirm your e-mail address"
    assert (await ann.request("GET", "/me/referrals")).json()["items"][0]["status"] == "pending"
    assert (await bob.request("GET", "/me")).json()["email_verified"] is False
    assert (await confirm(service, token_of(mail))).status_code == 204
    assert (await bob.request("GET", "/me")).json()["email_verified"] is True
    assert (await ann.request("GET", "/me/referrals")).json()["items"][0]["status"] == "confirmed"
    assert bob.email in (await wait_for_mails(sink, ann.email, 2))[-1].part("plain")
    assert (await wait_for_mails(sink, bob.email, 2))[-1].message["Subject"] == "Welcome"
    assert problem_slug(await confirm(service, token_of(mail))) == "token-unusable"
    again = await bob.request("POST", "/auth/email/verification")
    assert (again.status_code, problem_slug(again)) == (409, "email-already-verified")


async def test_confirmation_needs_password_or_session(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Without the user's password or bearer token the link is rejected and stays valid."""
    bob, eve = await join(service), await join(service)
    token = token_of((await wait_for_mails(sink, bob.email, 1))[0])
    for rejected in (
        await confirm(service, token, None),
        await confirm(service, token, "not the password"),
        await confirm(service, token, None, headers=eve.headers),
    ):
        assert (rejected.status_code, problem_slug(rejected)) == (422, "wrong-password")
    bad_header = await confirm(service, token, headers={"Authorization": "Bearer garbled"})
    assert bad_header.status_code == 401
    assert (await bob.request("GET", "/me")).json()["email_verified"] is False
    assert (await confirm(service, token, None, headers=bob.headers)).status_code == 204
    assert (await bob.request("GET", "/me")).json()["email_verified"] is True


async def test_owner_of_the_mailbox_can_disown_the_account(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The account is erased, the e-mail is free, and the code has its use back."""
    ann = await join(service)
    await confirm(service, token_of((await wait_for_mails(sink, ann.email, 1))[0]))
    code = (await ann.issue_code(max_uses=1))["code"]
    eve = await join(service, referral_code=code)
    token = token_of((await wait_for_mails(sink, eve.email, 1))[0])
    assert (await disown(service, token)).status_code == 204
    assert problem_slug(await disown(service, token)) == "token-unusable"
    assert (await eve.request("GET", "/me")).status_code == 401
    found = await service.get(f"{API}/codes/lookup", params={"email": ann.email})
    assert found.json()["code"] == code
    (item,) = (await ann.request("GET", "/me/referrals")).json()["items"]
    assert (item["status"], item["email"]) == ("rejected", None)
    owner = await join(service, eve.email, referral_code=code)
    assert owner.id != eve.id
    first, second = (token_of(mail) for mail in await wait_for_mails(sink, eve.email, 2))
    assert first == token
    assert (await confirm(service, second)).status_code == 204


async def test_password_reset_confirms_the_email(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The owner of the mailbox takes the account over; the old password is invalid."""
    eve = await join(service)
    await wait_for_mails(sink, eve.email, 1)
    await request_reset(service, eve.email)
    token = token_of((await wait_for_mails(sink, eve.email, 2))[-1])
    assert (await reset(service, token)).status_code == 204
    assert (await log_in(service, eve.email)).status_code == 400
    owner = (await log_in(service, eve.email, NEW_PASSWORD)).json()
    headers = {"Authorization": f"Bearer {owner['access_token']}"}
    me = (await service.get(f"{API}/me", headers=headers)).json()
    assert me["email_verified"] is True


async def test_confirmation_invalidates_the_lookup(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """A look-up finds the code at once, although the caches hold an empty result."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    query = {"email": ann.email}
    token = token_of((await wait_for_mails(sink, ann.email, 1))[0])
    assert (await service.get(f"{API}/codes/lookup", params=query)).status_code == 404
    assert (await confirm(service, token)).status_code == 204
    assert (await service.get(f"{API}/codes/lookup", params=query)).json()["code"] == code


async def test_confirmation_link_can_be_requested_again(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Either link confirms, and then both are invalid."""
    bob = await join(service, locale="ru")
    await wait_for_mails(sink, bob.email, 1)
    assert (await bob.request("POST", "/auth/email/verification")).status_code == 202
    first, second = [token_of(mail) for mail in await wait_for_mails(sink, bob.email, 2)]
    assert sink.mails_to(bob.email)[-1].message["Subject"] == "Подтвердите адрес электронной почты"
    assert first != second
    assert (await confirm(service, second)).status_code == 204
    assert problem_slug(await confirm(service, first)) == "token-unusable"


async def test_five_links_an_hour_are_sent(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The next request is 429 with Retry-After."""
    bob = await join(service)
    await wait_for_mails(sink, bob.email, 1)
    responses = [await bob.request("POST", "/auth/email/verification") for _ in range(5)]
    assert [response.status_code for response in responses] == [202] * 4 + [429]
    assert int(responses[-1].headers["Retry-After"]) > 0
    assert (await request_reset(service, bob.email)).status_code == 202


async def test_reset_requests_use_no_quota_of_other_mails(
    serve: ServiceFactory, worker_settings: Settings, sink: SmtpSink
) -> None:
    """Requests for reset links before the registration do not block confirmation links."""
    async with serve(worker_settings) as client:
        email = new_email()
        for _ in range(7):
            await request_reset(client, email)
        ann = await join(client, email)
        await wait_for_mails(sink, email, 1)
        responses = [await ann.request("POST", "/auth/email/verification") for _ in range(4)]
    assert [response.status_code for response in responses] == [202] * 4


async def test_reset_request_has_the_same_response_for_every_email(
    serve: ServiceFactory, worker_settings: Settings, sink: SmtpSink
) -> None:
    """Unknown, known and over its quota, an e-mail gets 202 with the same body and headers."""
    async with serve(replace(worker_settings, limit_token=Rate.parse("1000/minute"))) as client:
        ann, bob = await join(client), await join(client)
        await wait_for_mails(sink, bob.email, 1)
        for _ in range(4):
            await bob.request("POST", "/auth/email/verification")
        by_email = []
        for email in (new_email(), ann.email, bob.email):
            responses = [await request_reset(client, email) for _ in range(7)]
            by_email.append([_observable(response) for response in responses])
    assert [status for status, _, _ in by_email[0]] == [202] * 7
    assert by_email[0] == by_email[1] == by_email[2]


def _observable(response: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body without the values that are new in each response."""
    varying, request_id = {"ratelimit"}, response.headers["X-Request-ID"]
    headers = {name: value.replace(request_id, "") for name, value in response.headers.items()}
    fixed = {name: value for name, value in headers.items() if name not in varying}
    return response.status_code, fixed, response.text.replace(request_id, "")


async def test_password_reset_ends_all_sessions(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The link works once, rejects a weak password, and ends all sessions."""
    ann = await join(service)
    await wait_for_mails(sink, ann.email, 1)
    tokens = (await log_in(service, ann.email)).json()
    assert (await request_reset(service, ann.email.upper())).status_code == 202
    token = token_of((await wait_for_mails(sink, ann.email, 2))[-1])
    weak = await reset(service, token, "password123")
    assert (weak.status_code, problem_slug(weak)) == (422, "weak-password")
    assert weak.json()["errors"][0]["pointer"] == "/new_password"
    assert (await reset(service, token)).status_code == 204
    assert problem_slug(await reset(service, token)) == "token-unusable"
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await service.post(f"{API}/auth/token", data=form)).status_code == 400
    assert (await log_in(service, ann.email)).status_code == 400
    assert (await log_in(service, ann.email, NEW_PASSWORD)).status_code == 200


async def test_reset_request_does_not_reveal_accounts(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The response is the same, and only a known e-mail gets a link."""
    ann, nobody = await join(service), new_email()
    await wait_for_mails(sink, ann.email, 1)
    known, unknown = await request_reset(service, ann.email), await request_reset(service, nobody)
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    await wait_for_mails(sink, ann.email, 2)
    assert sink.mails_to(nobody) == []


async def test_link_has_one_purpose(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """A link is rejected for the other purpose and stays valid for its own."""
    ann = await join(service)
    confirming = token_of((await wait_for_mails(sink, ann.email, 1))[0])
    await request_reset(service, ann.email)
    resetting = token_of((await wait_for_mails(sink, ann.email, 2))[-1])
    assert problem_slug(await reset(service, confirming)) == "token-unusable"
    assert problem_slug(await confirm(service, resetting)) == "token-unusable"
    assert (await confirm(service, confirming)).status_code == 204
    assert (await reset(service, resetting)).status_code == 204


async def test_concurrent_confirmations_succeed_once(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """Of 20 concurrent requests one succeeds, and the referrer gets one e-mail."""
    ann = await join(service)
    bob = await join(service, referral_code=(await ann.issue_code())["code"])
    token = token_of((await wait_for_mails(sink, bob.email, 1))[0])
    responses = await asyncio.gather(
        *(confirm(service, token, None, headers=bob.headers) for _ in range(20))
    )
    assert sorted(response.status_code for response in responses) == [204] + [422] * 19
    assert await final_subjects(sink, bob.email, database_url) == [CONFIRM_SUBJECT, "Welcome"]
    assert await final_subjects(sink, ann.email, database_url) == [
        CONFIRM_SUBJECT,
        REFERRED_SUBJECT,
    ]


async def test_concurrent_confirm_and_disown_have_one_winner(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The account is confirmed, or erased with its referral rejected."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    for _ in range(5):
        bob = await join(service, referral_code=code)
        token = token_of((await wait_for_mails(sink, bob.email, 1))[0])
        requests = [
            request
            for _ in range(3)
            for request in (
                confirm(service, token, None, headers=bob.headers),
                disown(service, token),
            )
        ]
        responses = await asyncio.gather(*requests)
        assert sorted(response.status_code for response in responses) == [204] + [422] * 5
        confirmed = any(response.status_code == 204 for response in responses[::2])
        account = await bob.request("GET", "/me")
        assert account.status_code == (200 if confirmed else 401)
    listed = (await ann.request("GET", "/me/referrals")).json()["items"]
    confirmed_items = [item for item in listed if item["status"] == "confirmed"]
    assert {item["status"] for item in listed} <= {"confirmed", "rejected"}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == len(confirmed_items)


async def test_uses_match_the_counted_referrals(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """Users register while others are disowned, and `max_uses` holds."""
    ann = await join(service)
    code = await ann.issue_code(max_uses=3)
    first = [await join(service, referral_code=code["code"]) for _ in range(3)]
    tokens = [token_of((await wait_for_mails(sink, member.email, 1))[0]) for member in first]
    responses = await asyncio.gather(
        *(disown(service, token) for token in tokens),
        *(register(service, referral_code=code["code"]) for _ in range(9)),
    )
    joined = sum(response.status_code == 201 for response in responses[3:])
    assert [response.status_code for response in responses[:3]] == [204] * 3
    assert {response.status_code for response in responses[3:]} <= {201, 422}
    shown = (await ann.request("GET", f"/me/codes/{code['id']}")).json()
    assert (shown["uses"], shown["max_uses"]) == (joined, 3)


@pytest.mark.parametrize(("purpose", "hours"), [("confirm", 24), ("reset", 1)])
async def test_links_expire(
    serve: ServiceFactory,
    worker_settings: Settings,
    sink: SmtpSink,
    clock: FakeClock,
    purpose: str,
    hours: int,
) -> None:
    """A confirmation link expires after a day, a reset link after an hour."""
    async with serve(worker_settings) as client:
        ann = await join(client)
        token = token_of((await wait_for_mails(sink, ann.email, 1))[0])
        if purpose == "reset":
            await request_reset(client, ann.email)
            token = token_of((await wait_for_mails(sink, ann.email, 2))[-1])
        clock.advance(hours=hours, seconds=1)
        response = await (confirm if purpose == "confirm" else reset)(client, token)
        assert problem_slug(response) == "token-unusable"


async def test_token_is_neither_stored_nor_logged(
    service: httpx.AsyncClient,
    sink: SmtpSink,
    database: PostgresDatabase,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither the tables, with the queue, nor the log have the token."""
    ann = await join(service)
    token = token_of((await wait_for_mails(sink, ann.email, 1))[0])
    async with database.read() as repositories:
        for table in ("one_time_tokens", "pgqueuer", "pgqueuer_log", "attempts"):
            found = str(await repositories.connection.fetch_sql(f"SELECT t::text FROM {table} t"))  # noqa: S608
            assert token not in found
            assert token.encode().hex() not in found
            assert ann.email not in found
    assert (await service.get(f"/confirm?token={token}")).status_code == 200
    assert (await confirm(service, token)).status_code == 204
    printed = "".join(capfd.readouterr())
    assert "request" in printed
    assert token not in printed


async def test_opening_a_page_changes_nothing(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """E-mail scanners open links: only the form, plain HTML, uses the token."""
    ann = await join(service)
    token = token_of((await wait_for_mails(sink, ann.email, 1))[0])
    for _ in range(2):
        page = await service.get("/confirm", params={"token": token})
        assert page.status_code == 200
        assert token in page.text
        assert escape(ann.email) in page.text
        assert "<script" not in page.text
        assert "form-action 'self'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
    form, russian = {"token": token, "password": PASSWORD}, {"Accept-Language": "ru"}
    for invalid in ({"token": token}, form | {"password": "not the password"}):
        rejected = await service.post("/confirm", data=invalid)
        assert rejected.status_code == 422
        assert 'role="alert"' in rejected.text
        assert token in rejected.text
    confirmed = await service.post("/confirm", data=form, headers=russian)
    assert confirmed.status_code == 200
    assert "подтверждён" in confirmed.text
    used = await service.post("/confirm", data=form)
    assert (used.status_code, used.headers["Content-Type"]) == (422, "text/html; charset=utf-8")
    assert (await service.get("/confirm", params={"token": token})).status_code == 422


async def test_confirmation_page_can_disown(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The form to disown needs no password; the account is erased."""
    eve = await join(service)
    token = token_of((await wait_for_mails(sink, eve.email, 1))[0])
    page = await service.get("/confirm", params={"token": token})
    assert '<form method="post" action="/disown">' in page.text
    disowned = await service.post("/disown", data={"token": token})
    assert (disowned.status_code, disowned.headers["Content-Type"]) == (
        200,
        "text/html; charset=utf-8",
    )
    assert (await eve.request("GET", "/me")).status_code == 401
    assert (await service.post("/disown", data={"token": token})).status_code == 422


async def test_page_of_an_invalid_link_has_no_form(
    client: httpx.AsyncClient,
) -> None:
    """Both pages respond with 422 before the user types anything."""
    for page in ("confirm", "reset"):
        shown = await client.get(f"/{page}", params={"token": "made up"})
        assert (shown.status_code, "<form" in shown.text) == (422, False)


@pytest.mark.parametrize("page", ["confirm", "reset"])
async def test_page_without_a_token_names_the_next_step(
    client: httpx.AsyncClient, page: str
) -> None:
    """It says where the link is, in the client's language, and has no form."""
    for locale, mail in (("en", "mail"), ("ru", "письм")):
        shown = await client.get(f"/{page}", headers={"Accept-Language": locale})
        assert (shown.status_code, "<form" in shown.text) == (422, False)
        assert mail in shown.text
        unusable = await client.get(f"/{page}?token=x", headers={"Accept-Language": locale})
        assert shown.text != unusable.text


async def test_pages_show_an_outage(settings: Settings, key_file: Path) -> None:
    """The page is HTML with status 503 and Retry-After."""
    without_database = replace(settings, database_url="postgresql://127.0.0.1:1/none")
    async with run_service(without_database) as client:
        unsubscribe_token = SignedUnsubscribeTokens(KeyRing([key_file])).sign(UUID(int=1))
        for page in ("confirm?token=any", "reset?token=any", f"unsubscribe/{unsubscribe_token}"):
            shown = await client.get(f"/{page}")
            assert shown.status_code == 503
            assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
            assert shown.headers["Retry-After"].isdigit()


async def test_reset_page_explains_a_weak_password(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """A weak password shows the form again, and the link stays valid."""
    ann = await join(service)
    await request_reset(service, ann.email)
    mails = await wait_for_mails(sink, ann.email, 2)
    token = next(token_of(mail) for mail in mails if "/reset?" in mail.part("plain"))
    weak = await service.post("/reset", data={"token": token, "new_password": "short"})
    assert weak.status_code == 422
    assert token in weak.text
    assert escape(ann.email) in weak.text
    assert 'role="alert"' in weak.text
    changed = await service.post("/reset", data={"token": token, "new_password": NEW_PASSWORD})
    assert changed.status_code == 200
    assert (await log_in(service, ann.email, NEW_PASSWORD)).status_code == 200


@pytest.mark.parametrize("page", ["confirm", "reset"])
async def test_malformed_form_is_an_invalid_link(client: httpx.AsyncClient, page: str) -> None:
    """A body that is not UTF-8 is 422."""
    assert (await client.post(f"/{page}", content=b"\xff\xfe")).status_code == 422


async def test_pages_escape_the_email(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The e-mail is escaped in the text and in the field for password managers."""
    email = f"o'neil&lt+{new_email()}"
    await join(service, email)
    token = token_of((await wait_for_mails(sink, email, 1))[0])
    confirm_page = (await service.get("/confirm", params={"token": token})).text
    await request_reset(service, email)
    mails = await wait_for_mails(sink, email, 2)
    token = next(token_of(mail) for mail in mails if "/reset?" in mail.part("plain"))
    reset_page = (await service.get("/reset", params={"token": token})).text
    for page in (confirm_page, reset_page):
        for template in ("<bdi>{}</bdi>", 'value="{}"'):
            assert template.format(escape(email)) in page
        assert email not in page


async def test_link_urls_are_configurable(
    serve: ServiceFactory, worker_settings: Settings, sink: SmtpSink
) -> None:
    """A configured page gets the token in its query."""
    custom = replace(worker_settings, confirm_url="https://shop.example/hello?from=mail")
    async with serve(custom) as client:
        ann = await join(client)
        (mail,) = await wait_for_mails(sink, ann.email, 1)
        assert "https://shop.example/hello?from=mail&token=" in mail.part("plain")


async def test_erasure_invalidates_links(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """Tokens are deleted with the account, and a reset request sends nothing."""
    ann = await join(service)
    token = token_of((await wait_for_mails(sink, ann.email, 1))[0])
    await ann.request("DELETE", "/me", json={"password": PASSWORD})
    assert problem_slug(await confirm(service, token)) == "token-unusable"
    assert (await request_reset(service, ann.email)).status_code == 202
    assert await final_subjects(sink, ann.email, database_url) == [CONFIRM_SUBJECT]
    assert [mail.to for mail in sink.received] == [ann.email]


async def test_queued_mails_are_not_sent_after_erasure(
    serve: ServiceFactory, worker_settings: Settings, sink: SmtpSink, database_url: str
) -> None:
    """No queued link of an erased account is sent."""
    async with serve(replace(worker_settings, worker="off")) as client:
        ann = await join(client)
        assert (await ann.request("POST", "/auth/email/verification")).status_code == 202
        assert (await request_reset(client, ann.email)).status_code == 202
        assert await fetch_value(database_url, "SELECT count(*) FROM pgqueuer") == 3
        await ann.request("DELETE", "/me", json={"password": PASSWORD})
    async with serve(worker_settings):
        assert await final_subjects(sink, ann.email, database_url) == []
    assert sink.received == []


async def test_mail_routes_support_idempotency_keys(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """Two requests with one key send one e-mail."""
    ann = await join(service)
    await wait_for_mails(sink, ann.email, 1)
    headers = ann.headers | {"Idempotency-Key": "once"}
    path = f"{API}/auth/email/verification"
    responses = [await service.post(path, headers=headers) for _ in range(2)]
    assert [(response.status_code, response.content) for response in responses] == [(202, b"")] * 2
    assert await final_subjects(sink, ann.email, database_url) == [CONFIRM_SUBJECT] * 2
