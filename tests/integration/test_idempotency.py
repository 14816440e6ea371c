"""Requests that carry an `Idempotency-Key`."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dishka import Provider, Scope
from sqlalchemy import text

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.core.entities.deliverability import Deliverability
from referral.core.ports.third_parties import EmailVerifier
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import API, PASSWORD, Member, join, new_email
from tests.support.fakes.ports import FakeClock
from tests.support.fakes.third_parties import FakeEmailVerifier
from tests.support.service_process import running_service


def key_header(key: str | None = None) -> dict[str, str]:
    """Return the header."""
    return {"Idempotency-Key": key or str(uuid4())}


async def create_code(ann: Member, headers: dict[str, str], **wanted: Any) -> httpx.Response:
    """Ask for a code."""
    body = {"lifetime_minutes": 60, "activate": False} | wanted
    path = f"{API}/me/codes"
    return await ann.client.post(path, json=body, headers=ann.headers | headers)


async def test_a_repeated_registration_gives_the_first_answer(client: httpx.AsyncClient) -> None:
    """The same bytes and the same Location, and no second account."""
    headers, body = key_header(), {"email": new_email(), "password": PASSWORD}
    first = await client.post(f"{API}/auth/register", json=body, headers=headers)
    again = await client.post(f"{API}/auth/register", json=body, headers=headers)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"] == "/api/v1/me"
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    taken = await client.post(f"{API}/auth/register", json=body)
    assert taken.status_code == 409


async def test_a_repeated_code_gives_the_first_answer(client: httpx.AsyncClient) -> None:
    """Even when the code has changed since: it is the answer of the time."""
    ann, headers = await join(client), key_header()
    first = await create_code(ann, headers)
    await ann.request("DELETE", f"/me/codes/{first.json()['id']}")
    again = await create_code(ann, headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert (await ann.request("GET", "/me/codes")).json()["items"] == []


async def test_another_body_under_the_same_key_is_refused(client: httpx.AsyncClient) -> None:
    """Also one that differs in the password alone."""
    ann, headers = await join(client), key_header()
    await create_code(ann, headers)
    refused = await create_code(ann, headers, max_uses=3)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("/idempotency-key-reused")
    headers, email = key_header(), new_email()
    for password, status in ((PASSWORD, 201), ("staple battery horse", 422)):
        body = {"email": email, "password": password}
        answer = await client.post(f"{API}/auth/register", json=body, headers=headers)
        assert answer.status_code == status


async def test_a_repeated_request_is_not_judged_again(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Its end has passed by then: it gets its first answer, and another body is told so first."""
    ann, headers = await join(client), key_header()
    ends = (clock.now() + timedelta(minutes=2)).isoformat()
    body = {"expires_at": ends, "activate": False}
    path = f"{API}/me/codes"
    first = await client.post(path, json=body, headers=ann.headers | headers)
    clock.advance(minutes=5)
    again = await client.post(path, json=body, headers=ann.headers | headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    fresh = await client.post(path, json=body, headers=ann.headers | key_header())
    assert fresh.json()["type"].endswith("/invalid-request")


async def test_a_repeated_registration_costs_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hash and no question to a third party, whose opinion may have changed since."""
    hashed: list[str] = []
    hash_password = ArgonPasswordHasher.hash

    async def count(self: ArgonPasswordHasher, password: str) -> str:
        hashed.append(password)
        return await hash_password(self, password)

    monkeypatch.setattr(ArgonPasswordHasher, "hash", count)
    verifier, fakes = FakeEmailVerifier(), Provider(scope=Scope.APP)
    fakes.provide(lambda: verifier, provides=EmailVerifier | None, override=True)
    headers, body = key_header(), {"email": new_email(), "password": PASSWORD}
    async with run_service(settings, fakes) as client:
        first = await client.post(f"{API}/auth/register", json=body, headers=headers)
        verifier.result = Deliverability.INVALID
        again = await client.post(f"{API}/auth/register", json=body, headers=headers)
        other = await client.post(f"{API}/auth/register", json=body | {"x": 1}, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert other.json()["type"].endswith("/idempotency-key-reused")
    assert (len(hashed), len(verifier.calls)) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/register", {"email": "", "password": PASSWORD}),
        ("/auth/password/forgot", {"email": ""}),
        ("/me/codes", {"lifetime_minutes": 60, "activate": False}),
    ],
)
async def test_a_key_is_looked_up_before_anything_but_json_is_judged(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """A body that no request may have is another body too; one that is no JSON is no body."""
    ann, headers = await join(client), key_header()
    sent = body | ({"email": new_email()} if "email" in body else {})

    async def send(**what: Any) -> httpx.Response:
        rest = ann.headers | headers | {"Content-Type": "application/json"}
        return await client.post(f"{API}{path}", headers=rest, **what)

    first = await send(json=sent)
    assert first.is_success
    wrongs: list[Any] = [{}, {"nonsense": True}, dict.fromkeys(sent, 1), []]
    for wrong in wrongs:
        refused = await send(json=wrong)
        assert refused.status_code == 422
        assert refused.json()["type"].endswith("/idempotency-key-reused")
    for content in (b"", b"{", b"\xff", b"{} {}"):
        refused = await send(content=content)
        assert refused.json()["type"].endswith("/malformed-request")
    again = await send(json=sent)
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_a_mail_that_is_asked_for_again_is_queued_once(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Requests without a body have keys as well."""
    ann, headers = await join(client), key_header()
    await ann.issue_code()
    for path in ("/me/codes/active/email", "/auth/email/verification"):
        queued = []
        for _ in range(2):
            answer = await client.post(f"{API}{path}", headers=ann.headers | headers)
            assert (answer.status_code, answer.content) == (202, b"")
            async with database.read() as records:
                found = await records.session.execute(text("SELECT count(*) FROM pgqueuer"))
            queued.append(found.scalar_one())
        assert queued[0] == queued[1]
        headers = key_header()


async def test_keys_belong_to_the_caller(client: httpx.AsyncClient) -> None:
    """Two users, and someone who is not signed in, may use the same key."""
    headers = key_header()
    ann, bob = await join(client), await join(client)
    codes = {(await create_code(member, headers)).json()["code"] for member in (ann, bob)}
    assert len(codes) == 2
    body = {"email": new_email(), "password": PASSWORD}
    joined = await client.post(f"{API}/auth/register", json=body, headers=headers)
    assert joined.status_code == 201


async def test_a_refusal_is_not_remembered(client: httpx.AsyncClient) -> None:
    """What changed nothing is tried anew."""
    ann, headers = await join(client), key_header()
    active = await ann.issue_code()
    assert (await create_code(ann, headers, activate=True)).status_code == 409
    await ann.request("DELETE", f"/me/codes/{active['id']}")
    assert (await create_code(ann, headers, activate=True)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "caf\u00e9"])
async def test_a_key_out_of_shape_is_refused(client: httpx.AsyncClient, key: str) -> None:
    """One to 255 visible ASCII characters."""
    ann = await join(client)
    headers = httpx.Headers(ann.headers | {"Idempotency-Key": key}, encoding="utf-8")
    refused = await client.post(f"{API}/me/codes", json={"lifetime_minutes": 60}, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "Idempotency-Key"


async def test_answers_are_forgotten_after_24_hours(
    client: httpx.AsyncClient, clock: FakeClock, database: PostgresDatabase
) -> None:
    """The key is free again, and the next request sweeps what is old."""
    ann, headers = await join(client), key_header()
    first = await create_code(ann, headers)
    clock.advance(hours=23)
    ann = await ann.log_in_again()
    assert (await create_code(ann, headers)).content == first.content
    clock.advance(hours=2)
    second = await create_code(await ann.log_in_again(), headers)
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    query = text("SELECT count(*) FROM attempts WHERE body = :body")
    async with database.read() as records:
        left = await records.session.execute(query, {"body": first.content})
    assert left.scalar_one() == 0


async def test_neither_password_nor_token_is_remembered(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The record holds the answer, which has no secret, and keyed digests."""
    secret = "a password that stands out"
    body = {"email": new_email(), "password": secret}
    await client.post(f"{API}/auth/register", json=body, headers=key_header())
    async with database.read() as records:
        rows = (await records.session.execute(text("SELECT * FROM attempts"))).all()
    assert rows
    assert secret.encode() not in b"".join(bytes(v) for r in rows for v in r if type(v) is bytes)


async def test_50_at_once_have_one_effect_and_one_answer(client: httpx.AsyncClient) -> None:
    """Who comes while the first is at work is told so; nobody gets another answer."""
    ann, headers = await join(client), key_header()
    answers = await asyncio.gather(*(create_code(ann, headers) for _ in range(50)))
    made = {answer.content for answer in answers if answer.status_code == 201}
    others = {answer.json()["type"] for answer in answers if answer.status_code != 201}
    assert len(made) == 1
    assert others <= {"http://127.0.0.1:8000/problems/idempotency-key-in-use"}
    assert len((await ann.request("GET", "/me/codes")).json()["items"]) == 1
    assert (await create_code(ann, headers)).content in made


async def test_50_registrations_at_once_make_one_account(client: httpx.AsyncClient) -> None:
    """None of them is told that the address is taken: it is its own account."""
    headers, body = key_header(), {"email": new_email(), "password": PASSWORD}
    answers = await asyncio.gather(
        *(client.post(f"{API}/auth/register", json=body, headers=headers) for _ in range(50))
    )
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    slugs = {a.json()["type"].rpartition("/")[2] for a in answers if a.status_code != 201}
    assert slugs <= {"idempotency-key-in-use"}


async def test_a_request_that_holds_its_key_is_in_use(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """409 while the first is at work, and done once it is over without a trace."""
    ann, headers = await join(client), key_header()
    async with database.begin() as records:
        lock = text("SELECT id FROM users WHERE email = :email FOR UPDATE")
        await records.session.execute(lock, {"email": ann.email})
        first = asyncio.create_task(create_code(ann, headers))
        await key_is_held(database)
        refused = await create_code(ann, headers)
        assert refused.status_code == 409
        assert refused.json()["type"].endswith("/idempotency-key-in-use")
    assert (await first).status_code == 201
    assert (await create_code(ann, headers)).content == (await first).content


async def key_is_held(database: PostgresDatabase) -> None:
    """Wait until some transaction holds a key."""
    query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    async with asyncio.timeout(5):
        while True:
            async with database.read() as records:
                if (await records.session.execute(query)).scalar_one():
                    return


async def test_after_a_kill_the_retry_completes(tmp_path: Path) -> None:
    """Kill -9 while requests are at work: each retry is done, and none is done twice."""
    bodies = [(str(uuid4()), {"email": new_email(), "password": PASSWORD}) for _ in range(20)]

    async def send(client: httpx.AsyncClient, number: int) -> httpx.Response | None:
        key, body = bodies[number]
        with suppress(httpx.TransportError):
            return await client.post(f"{API}/auth/register", json=body, headers=key_header(key))
        return None

    with running_service(tmp_path / "data") as first:
        async with httpx.AsyncClient(base_url=first.url) as client:
            sending = [asyncio.create_task(send(client, number)) for number in range(len(bodies))]
            await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
            first.process.kill()
            before = await asyncio.gather(*sending)
    assert None in before
    with running_service(tmp_path / "data") as second:
        async with httpx.AsyncClient(base_url=second.url) as client:
            after = [await send(client, number) for number in range(len(bodies))]
            again = [await send(client, number) for number in range(len(bodies))]
    for known, retried, repeated in zip(before, after, again, strict=True):
        assert retried is not None
        assert repeated is not None
        assert retried.status_code == 201
        assert retried.content == repeated.content
        assert known is None or known.content == retried.content
