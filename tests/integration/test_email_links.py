"""Links by mail, from the request to the recipient and back, with real parts."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import escape, unescape
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory, execute, fetch_value, run_service
from tests.support.api_client import API, PASSWORD, join, log_in, new_email, register
from tests.support.fakes.ports import FakeClock
from tests.support.smtp_sink import ReceivedMail, SmtpSink
from tests.support.waiting import wait_for_value, wait_until

NEW_PASSWORD = "staple battery horse"
CONFIRM_SUBJECT = "Confirm your e-mail address"
REFERRED_SUBJECT = "Someone joined with your code"


@pytest.fixture
async def mailing(settings: Settings, sink: SmtpSink, database_url: str) -> Settings:
    """Settings of a service that mails to the sink and has addresses confirmed."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    return replace(settings, smtp_url=sink.url, worker="inline", email_verification="on")


@pytest.fixture
async def service(mailing: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Such a service."""
    async with run_service(mailing) as client:
        yield client


def slug(answer: httpx.Response) -> str:
    """Return what the problem is called."""
    return str(answer.json()["type"]).rpartition("/")[2]


def token_of(mail: ReceivedMail) -> str:
    """Return the token of the link in a mail, the same in both of its parts."""
    pattern = r"http://127\.0\.0\.1:8000/(?:confirm|reset)\?token=([\w-]{43})"
    plain = re.findall(pattern, mail.part("plain"))
    assert set(re.findall(pattern, unescape(mail.part("html")))) == set(plain)
    assert len(plain) == 1
    return str(plain[0])


async def mails(sink: SmtpSink, email: str, number: int) -> list[ReceivedMail]:
    """Wait until someone has got so many mails."""
    await wait_until(lambda: len(sink.mails_to(email)) >= number)
    return sink.mails_to(email)


async def subjects(sink: SmtpSink, email: str, database_url: str) -> list[str]:
    """Return what the mails to someone are about, sorted, once no job is left."""

    async def is_empty() -> bool:
        return await fetch_value(database_url, "SELECT count(*) FROM pgqueuer") == 0

    await wait_for_value(is_empty)
    return sorted(str(mail.message["Subject"]) for mail in sink.mails_to(email))


async def confirm(
    client: httpx.AsyncClient, token: str, password: str | None = PASSWORD, **rest: Any
) -> httpx.Response:
    """Follow a link, as who registered."""
    body = {"token": token} | ({} if password is None else {"password": password})
    return await client.post(f"{API}/auth/email/confirm", json=body, **rest)


async def disown(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Follow a link, as who did not register."""
    return await client.post(f"{API}/auth/email/disown", json={"token": token})


async def request_reset(client: httpx.AsyncClient, email: str) -> httpx.Response:
    """Ask for a new password."""
    return await client.post(f"{API}/auth/password/forgot", json={"email": email})


async def reset(
    client: httpx.AsyncClient, token: str, password: str = NEW_PASSWORD
) -> httpx.Response:
    """Set a new password."""
    body = {"token": token, "new_password": password}
    return await client.post(f"{API}/auth/password/reset", json=body)


async def test_a_referral_counts_once_the_address_is_confirmed(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Pending and untold before; confirmed, greeted and told after the link, which works once."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    bob = await join(service, referral_code=code)
    (letter,) = await mails(sink, bob.email, 1)
    assert letter.message["Subject"] == "Confirm your e-mail address"
    assert (await ann.request("GET", "/me/referrals")).json()["items"][0]["status"] == "pending"
    assert (await bob.request("GET", "/me")).json()["email_verified"] is False
    assert (await confirm(service, token_of(letter))).status_code == 204
    assert (await bob.request("GET", "/me")).json()["email_verified"] is True
    assert (await ann.request("GET", "/me/referrals")).json()["items"][0]["status"] == "confirmed"
    assert bob.email in (await mails(sink, ann.email, 2))[-1].part("plain")
    assert (await mails(sink, bob.email, 2))[-1].message["Subject"] == "Welcome"
    assert slug(await confirm(service, token_of(letter))) == "token-unusable"
    again = await bob.request("POST", "/auth/email/verification")
    assert (again.status_code, slug(again)) == (409, "email-already-verified")


async def test_only_who_registered_confirms(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """With the password or an own bearer token; anything else leaves the link good."""
    bob, eve = await join(service), await join(service)
    token = token_of((await mails(sink, bob.email, 1))[0])
    for refused in (
        await confirm(service, token, None),
        await confirm(service, token, "not the password"),
        await confirm(service, token, None, headers=eve.headers),
    ):
        assert (refused.status_code, slug(refused)) == (422, "wrong-password")
    garbled = await confirm(service, token, headers={"Authorization": "Bearer garbled"})
    assert garbled.status_code == 401
    assert (await bob.request("GET", "/me")).json()["email_verified"] is False
    assert (await confirm(service, token, None, headers=bob.headers)).status_code == 204
    assert (await bob.request("GET", "/me")).json()["email_verified"] is True


async def test_the_owner_of_a_mailbox_disowns_an_account(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Who made it is out, the address is free, and the code has its use back."""
    ann = await join(service)
    await confirm(service, token_of((await mails(sink, ann.email, 1))[0]))
    code = (await ann.issue_code(max_uses=1))["code"]
    eve = await join(service, referral_code=code)
    token = token_of((await mails(sink, eve.email, 1))[0])
    assert (await disown(service, token)).status_code == 204
    assert slug(await disown(service, token)) == "token-unusable"
    assert (await eve.request("GET", "/me")).status_code == 401
    found = await service.get(f"{API}/codes/lookup", params={"email": ann.email})
    assert found.json()["code"] == code
    (item,) = (await ann.request("GET", "/me/referrals")).json()["items"]
    assert (item["status"], item["email"]) == ("rejected", None)
    owner = await join(service, eve.email, referral_code=code)
    assert owner.id != eve.id
    first, second = (token_of(mail) for mail in await mails(sink, eve.email, 2))
    assert first == token
    assert (await confirm(service, second)).status_code == 204


async def test_a_reset_takes_an_account_over(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """Whoever reads the mailbox is confirmed, and who registered is out."""
    eve = await join(service)
    await mails(sink, eve.email, 1)
    await request_reset(service, eve.email)
    token = token_of((await mails(sink, eve.email, 2))[-1])
    assert (await reset(service, token)).status_code == 204
    assert (await log_in(service, eve.email)).status_code == 400
    owner = (await log_in(service, eve.email, NEW_PASSWORD)).json()
    headers = {"Authorization": f"Bearer {owner['access_token']}"}
    me = (await service.get(f"{API}/me", headers=headers)).json()
    assert me["email_verified"] is True


async def test_an_address_finds_its_code_as_soon_as_it_is_confirmed(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Although a moment ago, as the caches remember, there was nothing to find."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    where = {"email": ann.email}
    token = token_of((await mails(sink, ann.email, 1))[0])
    assert (await service.get(f"{API}/codes/lookup", params=where)).status_code == 404
    assert (await confirm(service, token)).status_code == 204
    assert (await service.get(f"{API}/codes/lookup", params=where)).json()["code"] == code


async def test_a_fresh_link_can_be_asked_for(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """Either link confirms, in the user's language, and then both are used up."""
    bob = await join(service, locale="ru")
    await mails(sink, bob.email, 1)
    assert (await bob.request("POST", "/auth/email/verification")).status_code == 202
    first, second = [token_of(mail) for mail in await mails(sink, bob.email, 2)]
    assert sink.mails_to(bob.email)[-1].message["Subject"] == "Подтвердите адрес электронной почты"
    assert first != second
    assert (await confirm(service, second)).status_code == 204
    assert slug(await confirm(service, first)) == "token-unusable"


async def test_an_address_gets_no_more_than_five_links_an_hour(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The sixth request is refused, and says when to come again."""
    bob = await join(service)
    await mails(sink, bob.email, 1)
    asked = [await bob.request("POST", "/auth/email/verification") for _ in range(5)]
    assert [answer.status_code for answer in asked] == [202] * 4 + [429]
    assert int(asked[-1].headers["Retry-After"]) > 0
    assert (await request_reset(service, bob.email)).status_code == 202


async def test_requests_for_reset_links_take_no_places_of_other_mails(
    serve: ServiceFactory, mailing: Settings, sink: SmtpSink
) -> None:
    """Whoever asks for them, before and after the account is made, keeps its owner from nothing."""
    async with serve(mailing) as client:
        email = new_email()
        for _ in range(7):
            await request_reset(client, email)
        ann = await join(client, email)
        await mails(sink, email, 1)
        asked = [await ann.request("POST", "/auth/email/verification") for _ in range(4)]
    assert [answer.status_code for answer in asked] == [202] * 4


async def test_a_request_for_a_reset_link_is_answered_alike_for_every_address(
    serve: ServiceFactory, mailing: Settings, sink: SmtpSink
) -> None:
    """Of nobody, of somebody, and of somebody who got all the mails of an hour, also past the mails
    of an hour: 202, and the same bytes and headers.
    """
    async with serve(replace(mailing, limit_token=Rate.parse("1000/minute"))) as client:
        ann, bob = await join(client), await join(client)
        await mails(sink, bob.email, 1)
        for _ in range(4):
            await bob.request("POST", "/auth/email/verification")
        told = []
        for email in (new_email(), ann.email, bob.email):
            answers = [await request_reset(client, email) for _ in range(7)]
            told.append([_observable(answer) for answer in answers])
    assert [status for status, _, _ in told[0]] == [202] * 7
    assert told[0] == told[1] == told[2]


def _observable(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """Return what an answer tells, less what is new in each."""
    new, request_id = {"ratelimit"}, answer.headers["X-Request-ID"]
    headers = {name: value.replace(request_id, "") for name, value in answer.headers.items()}
    left = {name: value for name, value in headers.items() if name not in new}
    return answer.status_code, left, answer.text.replace(request_id, "")


async def test_a_forgotten_password_is_set_anew(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """The link works once, and every session ends."""
    ann = await join(service)
    await mails(sink, ann.email, 1)
    tokens = (await log_in(service, ann.email)).json()
    assert (await request_reset(service, ann.email.upper())).status_code == 202
    token = token_of((await mails(sink, ann.email, 2))[-1])
    weak = await reset(service, token, "password123")
    assert (weak.status_code, slug(weak)) == (422, "weak-password")
    assert weak.json()["errors"][0]["pointer"] == "/new_password"
    assert (await reset(service, token)).status_code == 204
    assert slug(await reset(service, token)) == "token-unusable"
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await service.post(f"{API}/auth/token", data=form)).status_code == 400
    assert (await log_in(service, ann.email)).status_code == 400
    assert (await log_in(service, ann.email, NEW_PASSWORD)).status_code == 200


async def test_forgetting_tells_nobody_who_has_an_account(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """The same answer, and mail to none but the user."""
    ann, nobody = await join(service), new_email()
    await mails(sink, ann.email, 1)
    known, unknown = await request_reset(service, ann.email), await request_reset(service, nobody)
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    await mails(sink, ann.email, 2)
    assert sink.mails_to(nobody) == []


async def test_a_link_is_for_one_thing(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """A confirmation sets no password, a reset confirms nothing, and neither is used up by it."""
    ann = await join(service)
    confirming = token_of((await mails(sink, ann.email, 1))[0])
    await request_reset(service, ann.email)
    resetting = token_of((await mails(sink, ann.email, 2))[-1])
    assert slug(await reset(service, confirming)) == "token-unusable"
    assert slug(await confirm(service, resetting)) == "token-unusable"
    assert (await confirm(service, confirming)).status_code == 204
    assert (await reset(service, resetting)).status_code == 204


async def test_links_are_used_once_whoever_comes_at_once(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """Of twenty, one gets through, and the referrer hears of it once."""
    ann = await join(service)
    bob = await join(service, referral_code=(await ann.issue_code())["code"])
    token = token_of((await mails(sink, bob.email, 1))[0])
    answers = await asyncio.gather(
        *(confirm(service, token, None, headers=bob.headers) for _ in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [204] + [422] * 19
    assert await subjects(sink, bob.email, database_url) == [CONFIRM_SUBJECT, "Welcome"]
    assert await subjects(sink, ann.email, database_url) == [CONFIRM_SUBJECT, REFERRED_SUBJECT]


async def test_a_link_confirms_or_disowns_but_never_both(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Whichever comes first: the account is confirmed and there, or gone with its referral."""
    ann = await join(service)
    code = (await ann.issue_code())["code"]
    for _ in range(5):
        bob = await join(service, referral_code=code)
        token = token_of((await mails(sink, bob.email, 1))[0])
        asked = [
            ask
            for _ in range(3)
            for ask in (confirm(service, token, None, headers=bob.headers), disown(service, token))
        ]
        answers = await asyncio.gather(*asked)
        assert sorted(answer.status_code for answer in answers) == [204] + [422] * 5
        confirmed = any(answer.status_code == 204 for answer in answers[::2])
        account = await bob.request("GET", "/me")
        assert account.status_code == (200 if confirmed else 401)
    listed = (await ann.request("GET", "/me/referrals")).json()["items"]
    kept = [item for item in listed if item["status"] == "confirmed"]
    assert {item["status"] for item in listed} <= {"confirmed", "rejected"}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == len(kept)


async def test_uses_are_those_of_the_referrals_that_count(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """Strangers join with a code with three uses while others are disowned from it."""
    ann = await join(service)
    code = await ann.issue_code(max_uses=3)
    first = [await join(service, referral_code=code["code"]) for _ in range(3)]
    tokens = [token_of((await mails(sink, one.email, 1))[0]) for one in first]
    answers = await asyncio.gather(
        *(disown(service, token) for token in tokens),
        *(register(service, referral_code=code["code"]) for _ in range(9)),
    )
    joined = sum(answer.status_code == 201 for answer in answers[3:])
    assert [answer.status_code for answer in answers[:3]] == [204] * 3
    assert {answer.status_code for answer in answers[3:]} <= {201, 422}
    shown = (await ann.request("GET", f"/me/codes/{code['id']}")).json()
    assert (shown["uses"], shown["max_uses"]) == (joined, 3)


@pytest.mark.parametrize(("purpose", "hours"), [("confirm", 24), ("reset", 1)])
async def test_links_run_out(
    serve: ServiceFactory,
    mailing: Settings,
    sink: SmtpSink,
    clock: FakeClock,
    purpose: str,
    hours: int,
) -> None:
    """After a day, or for a password after an hour."""
    async with serve(mailing) as client:
        ann = await join(client)
        token = token_of((await mails(sink, ann.email, 1))[0])
        if purpose == "reset":
            await request_reset(client, ann.email)
            token = token_of((await mails(sink, ann.email, 2))[-1])
        clock.advance(hours=hours, seconds=1)
        answer = await (confirm if purpose == "confirm" else reset)(client, token)
        assert slug(answer) == "token-unusable"


async def test_no_token_is_stored_or_logged(
    service: httpx.AsyncClient,
    sink: SmtpSink,
    database: PostgresDatabase,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither in the tables, the queue among them, nor in what the service prints."""
    ann = await join(service)
    token = token_of((await mails(sink, ann.email, 1))[0])
    async with database.read() as records:
        for table in ("one_time_tokens", "pgqueuer", "pgqueuer_log", "attempts"):
            rows = await records.session.execute(text(f"SELECT t::text FROM {table} t"))  # noqa: S608
            found = "".join(rows.scalars())
            assert token not in found
            assert token.encode().hex() not in found
            assert ann.email not in found
    assert (await service.get(f"/confirm?token={token}")).status_code == 200
    assert (await confirm(service, token)).status_code == 204
    printed = "".join(capfd.readouterr())
    assert "request" in printed
    assert token not in printed


async def test_opening_a_page_consumes_nothing(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """Mail scanners open links; only the form of the page does something, in plain HTML."""
    ann = await join(service)
    token = token_of((await mails(sink, ann.email, 1))[0])
    for _ in range(2):
        page = await service.get("/confirm", params={"token": token})
        assert page.status_code == 200
        assert token in page.text
        assert escape(ann.email) in page.text
        assert "<script" not in page.text
        assert "form-action 'self'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
    form, russian = {"token": token, "password": PASSWORD}, {"Accept-Language": "ru"}
    for wrong in ({"token": token}, form | {"password": "not the password"}):
        refused = await service.post("/confirm", data=wrong)
        assert refused.status_code == 422
        assert 'role="alert"' in refused.text
        assert token in refused.text
    done = await service.post("/confirm", data=form, headers=russian)
    assert done.status_code == 200
    assert "подтверждён" in done.text
    used = await service.post("/confirm", data=form)
    assert (used.status_code, used.headers["Content-Type"]) == (422, "text/html; charset=utf-8")
    assert (await service.get("/confirm", params={"token": token})).status_code == 422


async def test_the_page_has_a_way_to_disown(service: httpx.AsyncClient, sink: SmtpSink) -> None:
    """A form of its own, which takes no password; the account is gone."""
    eve = await join(service)
    token = token_of((await mails(sink, eve.email, 1))[0])
    page = await service.get("/confirm", params={"token": token})
    assert '<form method="post" action="/disown">' in page.text
    done = await service.post("/disown", data={"token": token})
    assert (done.status_code, done.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (await eve.request("GET", "/me")).status_code == 401
    assert (await service.post("/disown", data={"token": token})).status_code == 422


async def test_a_page_says_at_once_that_a_link_is_good_for_nothing(
    client: httpx.AsyncClient,
) -> None:
    """Before anything is typed, in both pages."""
    for page in ("confirm", "reset"):
        shown = await client.get(f"/{page}", params={"token": "made up"})
        assert (shown.status_code, "<form" in shown.text) == (422, False)


async def test_a_page_says_that_a_part_does_not_answer(settings: Settings) -> None:
    """In HTML, with the time to come again."""
    gone = replace(settings, database_url="postgresql://127.0.0.1:1/none")
    async with run_service(gone) as client:
        for page in ("confirm", "reset"):
            shown = await client.get(f"/{page}", params={"token": "any"})
            assert shown.status_code == 503
            assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
            assert shown.headers["Retry-After"].isdigit()


async def test_the_page_for_a_password_says_what_is_wrong(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """A weak one brings the form again, and the link is still good."""
    ann = await join(service)
    await request_reset(service, ann.email)
    letters = await mails(sink, ann.email, 2)
    token = next(token_of(mail) for mail in letters if "/reset?" in mail.part("plain"))
    weak = await service.post("/reset", data={"token": token, "new_password": "short"})
    assert weak.status_code == 422
    assert token in weak.text
    assert escape(ann.email) in weak.text
    assert 'role="alert"' in weak.text
    done = await service.post("/reset", data={"token": token, "new_password": NEW_PASSWORD})
    assert done.status_code == 200
    assert (await log_in(service, ann.email, NEW_PASSWORD)).status_code == 200


@pytest.mark.parametrize("page", ["confirm", "reset"])
async def test_a_body_that_is_no_form_is_an_unusable_link(
    client: httpx.AsyncClient, page: str
) -> None:
    """It is not UTF-8."""
    assert (await client.post(f"/{page}", content=b"\xff\xfe")).status_code == 422


async def test_the_pages_show_an_address_as_text(
    service: httpx.AsyncClient, sink: SmtpSink
) -> None:
    """It is no mark-up, neither where it is read nor where a password manager finds it."""
    email = f"o'neil&lt+{new_email()}"
    await join(service, email)
    token = token_of((await mails(sink, email, 1))[0])
    shown = (await service.get("/confirm", params={"token": token})).text
    await request_reset(service, email)
    letters = await mails(sink, email, 2)
    token = next(token_of(mail) for mail in letters if "/reset?" in mail.part("plain"))
    resetting = (await service.get("/reset", params={"token": token})).text
    for page in (shown, resetting):
        for around in ("<bdi>{}</bdi>", 'value="{}"'):
            assert around.format(escape(email)) in page
        assert email not in page


async def test_links_lead_to_the_pages_of_the_settings(
    serve: ServiceFactory, mailing: Settings, sink: SmtpSink
) -> None:
    """A page of the product's own gets the token in its query."""
    own = replace(mailing, confirm_url="https://shop.example/hello?from=mail")
    async with serve(own) as client:
        ann = await join(client)
        (letter,) = await mails(sink, ann.email, 1)
        assert "https://shop.example/hello?from=mail&token=" in letter.part("plain")


async def test_leaving_makes_links_useless(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """The tokens go with the account, and whoever asks for a new password gets no mail."""
    ann = await join(service)
    token = token_of((await mails(sink, ann.email, 1))[0])
    await ann.request("DELETE", "/me", json={"password": PASSWORD})
    assert slug(await confirm(service, token)) == "token-unusable"
    assert (await request_reset(service, ann.email)).status_code == 202
    assert await subjects(sink, ann.email, database_url) == [CONFIRM_SUBJECT]
    assert [mail.to for mail in sink.received] == [ann.email]


async def test_what_waits_in_the_queue_mails_nobody_who_has_left(
    serve: ServiceFactory, mailing: Settings, sink: SmtpSink, database_url: str
) -> None:
    """Neither the first link, nor a fresh one, nor one for a password."""
    async with serve(replace(mailing, worker="off")) as client:
        ann = await join(client)
        assert (await ann.request("POST", "/auth/email/verification")).status_code == 202
        assert (await request_reset(client, ann.email)).status_code == 202
        assert await fetch_value(database_url, "SELECT count(*) FROM pgqueuer") == 3
        await ann.request("DELETE", "/me", json={"password": PASSWORD})
    async with serve(mailing):
        assert await subjects(sink, ann.email, database_url) == []
    assert sink.received == []


async def test_mail_routes_take_an_idempotency_key(
    service: httpx.AsyncClient, sink: SmtpSink, database_url: str
) -> None:
    """Asked twice with one key, one mail goes out."""
    ann = await join(service)
    await mails(sink, ann.email, 1)
    headers = ann.headers | {"Idempotency-Key": "once"}
    path = f"{API}/auth/email/verification"
    answers = [await service.post(path, headers=headers) for _ in range(2)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(202, b"")] * 2
    assert await subjects(sink, ann.email, database_url) == [CONFIRM_SUBJECT] * 2
