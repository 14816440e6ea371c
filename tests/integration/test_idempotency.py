"""Requests with an `Idempotency-Key`."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from dishka import Provider, Scope

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.core.entities.clients import Scope as AccessScope
from referral.core.entities.deliverability import Deliverability
from referral.core.ports.third_parties import EmailVerifier
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import API, PASSWORD, Member, join, new_email
from tests.support.clients import ClientCaller, create_client
from tests.support.fakes.system import FakeClock
from tests.support.fakes.third_parties import FakeEmailVerifier
from tests.support.service_process import running_service


def key_header(key: str | None = None) -> dict[str, str]:
    """Return the header with this key or a new one."""
    return {"Idempotency-Key": key or str(uuid4())}


async def create_code(ann: Member, headers: dict[str, str], **changes: Any) -> httpx.Response:
    """Create an inactive code."""
    body = {"lifetime_minutes": 60, "activate": False} | changes
    path = f"{API}/me/codes"
    return await ann.client.post(path, json=body, headers=ann.headers | headers)


async def test_repeated_registration_replays_the_response(client: httpx.AsyncClient) -> None:
    """Body and Location are the same, and there is no second account."""
    headers, body = key_header(), {"email": new_email(), "password": PASSWORD}
    first = await client.post(f"{API}/auth/register", json=body, headers=headers)
    again = await client.post(f"{API}/auth/register", json=body, headers=headers)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"] == "/api/v1/me"
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    taken = await client.post(f"{API}/auth/register", json=body)
    assert taken.status_code == 409


async def test_repeated_changes_of_a_client_replay_the_secret(
    client: httpx.AsyncClient, database: PostgresDatabase, database_url: str
) -> None:
    """A lost response loses no secret, and the database stores the response encrypted."""
    admin = await create_client(client, database, AccessScope.ADMIN)
    body = {"name": f"shop {uuid4()}", "scopes": ["users:read"]}
    created = await _send_twice(admin, "/clients", json=body)
    assert created.status_code == 201
    rotated = await _send_twice(admin, f"/clients/{created.json()['id']}/rotate-secret")
    assert rotated.status_code == 200
    assert rotated.json()["client_secret"] != created.json()["client_secret"]
    for response in (created, rotated):
        secret = response.json()["client_secret"].encode()
        query = "SELECT count(*) FROM attempts WHERE position($1::bytea IN body) > 0"
        connection = await asyncpg.connect(database_url)
        assert await connection.fetchval(query, secret) == 0
        await connection.close()


async def _send_twice(admin: ClientCaller, path: str, **sent: Any) -> httpx.Response:
    headers = admin.headers | key_header()
    first, again = [
        await admin.client.post(f"{API}{path}", headers=headers, **sent) for _ in range(2)
    ]
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers.get("Location") == first.headers.get("Location")
    return first


async def test_repeated_code_creation_replays_the_response(client: httpx.AsyncClient) -> None:
    """The stored response is replayed even if the code has changed since."""
    ann, headers = await join(client), key_header()
    first = await create_code(ann, headers)
    await ann.request("DELETE", f"/me/codes/{first.json()['id']}")
    again = await create_code(ann, headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    assert (await ann.request("GET", "/me/codes")).json()["items"] == []


async def test_key_with_another_body_is_rejected(client: httpx.AsyncClient) -> None:
    """The response is 422, also if only the password differs."""
    ann, headers = await join(client), key_header()
    await create_code(ann, headers)
    rejected = await create_code(ann, headers, max_uses=3)
    assert rejected.status_code == 422
    assert rejected.json()["type"].endswith("/idempotency-key-reused")
    headers, email = key_header(), new_email()
    for password, status in ((PASSWORD, 201), ("staple battery horse", 422)):
        body = {"email": email, "password": password}
        response = await client.post(f"{API}/auth/register", json=body, headers=headers)
        assert response.status_code == status


async def test_repeated_request_is_not_validated_again(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """The expiry has passed since, but the retry gets the stored response."""
    ann, headers = await join(client), key_header()
    expires_at = (clock.now() + timedelta(minutes=2)).isoformat()
    body = {"expires_at": expires_at, "activate": False}
    path = f"{API}/me/codes"
    first = await client.post(path, json=body, headers=ann.headers | headers)
    clock.advance(minutes=5)
    again = await client.post(path, json=body, headers=ann.headers | headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["Location"] == first.headers["Location"]
    new = await client.post(path, json=body, headers=ann.headers | key_header())
    assert new.json()["type"].endswith("/invalid-request")


async def test_repeated_registration_does_no_work(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry hashes no password and sends no request to a third party."""
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
async def test_key_is_checked_before_the_body_is_validated(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    """Another body is a reused key even if it is invalid; malformed JSON is 400 first."""
    ann, headers = await join(client), key_header()
    valid = body | ({"email": new_email()} if "email" in body else {})

    async def send(**options: Any) -> httpx.Response:
        all_headers = ann.headers | headers | {"Content-Type": "application/json"}
        return await client.post(f"{API}{path}", headers=all_headers, **options)

    first = await send(json=valid)
    assert first.is_success
    others: list[Any] = [{}, {"nonsense": True}, dict.fromkeys(valid, 1), []]
    for other in others:
        rejected = await send(json=other)
        assert rejected.status_code == 422
        assert rejected.json()["type"].endswith("/idempotency-key-reused")
    for content in (b"", b"{", b"\xff", b"{} {}"):
        rejected = await send(content=content)
        assert rejected.json()["type"].endswith("/malformed-request")
    again = await send(json=valid)
    assert (again.status_code, again.content) == (first.status_code, first.content)


async def test_repeated_mail_request_queues_one_mail(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Requests without a body support keys as well."""
    ann, headers = await join(client), key_header()
    await ann.issue_code()
    for path in ("/me/codes/active/email", "/auth/email/verification"):
        queued = []
        for _ in range(2):
            response = await client.post(f"{API}{path}", headers=ann.headers | headers)
            assert (response.status_code, response.content) == (202, b"")
            async with database.read() as repositories:
                queued.append(
                    len(await repositories.connection.fetch_sql("SELECT 1 FROM pgqueuer"))
                )
        assert queued[0] == queued[1]
        headers = key_header()


async def test_key_is_scoped_to_the_caller(client: httpx.AsyncClient) -> None:
    """Two users and an anonymous client can use the same key."""
    headers = key_header()
    ann, bob = await join(client), await join(client)
    codes = {(await create_code(member, headers)).json()["code"] for member in (ann, bob)}
    assert len(codes) == 2
    body = {"email": new_email(), "password": PASSWORD}
    joined = await client.post(f"{API}/auth/register", json=body, headers=headers)
    assert joined.status_code == 201


async def test_failed_request_is_not_stored(client: httpx.AsyncClient) -> None:
    """A request that changed nothing runs again."""
    ann, headers = await join(client), key_header()
    active = await ann.issue_code()
    assert (await create_code(ann, headers, activate=True)).status_code == 409
    await ann.request("DELETE", f"/me/codes/{active['id']}")
    assert (await create_code(ann, headers, activate=True)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "caf\u00e9"])
async def test_invalid_key_is_rejected(client: httpx.AsyncClient, key: str) -> None:
    """A key has 1 to 255 visible ASCII characters."""
    ann = await join(client)
    headers = httpx.Headers(ann.headers | {"Idempotency-Key": key}, encoding="utf-8")
    rejected = await client.post(f"{API}/me/codes", json={"lifetime_minutes": 60}, headers=headers)
    assert rejected.status_code == 422
    assert rejected.json()["errors"][0]["parameter"] == "Idempotency-Key"


async def test_stored_response_expires_after_24_hours(
    client: httpx.AsyncClient, clock: FakeClock, database: PostgresDatabase
) -> None:
    """After 24 hours the key is free, and the next request deletes the old record."""
    ann, headers = await join(client), key_header()
    first = await create_code(ann, headers)
    clock.advance(hours=23)
    ann = await ann.log_in_again()
    assert (await create_code(ann, headers)).content == first.content
    clock.advance(hours=2)
    second = await create_code(await ann.log_in_again(), headers)
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    query = "SELECT 1 FROM attempts WHERE body = $1"
    async with database.read() as repositories:
        assert not await repositories.connection.fetch_sql(query, first.content)


async def test_record_holds_no_secret(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The record holds keyed digests and a response without secrets."""
    secret = "a password that stands out"
    body = {"email": new_email(), "password": secret}
    await client.post(f"{API}/auth/register", json=body, headers=key_header())
    async with database.read() as repositories:
        rows = await repositories.connection.fetch_sql("SELECT * FROM attempts")
    assert rows
    assert secret.encode() not in b"".join(bytes(v) for r in rows for v in r if type(v) is bytes)


async def test_50_concurrent_requests_have_one_effect(client: httpx.AsyncClient) -> None:
    """Requests that overlap the first get 409; no other response differs."""
    ann, headers = await join(client), key_header()
    responses = await asyncio.gather(*(create_code(ann, headers) for _ in range(50)))
    created = {response.content for response in responses if response.status_code == 201}
    others = {response.json()["type"] for response in responses if response.status_code != 201}
    assert len(created) == 1
    assert others <= {"http://127.0.0.1:8000/problems/idempotency-key-in-use"}
    assert len((await ann.request("GET", "/me/codes")).json()["items"]) == 1
    assert (await create_code(ann, headers)).content in created


async def test_50_concurrent_registrations_make_one_account(client: httpx.AsyncClient) -> None:
    """No retry gets `email-taken` for its own account."""
    headers, body = key_header(), {"email": new_email(), "password": PASSWORD}
    responses = await asyncio.gather(
        *(client.post(f"{API}/auth/register", json=body, headers=headers) for _ in range(50))
    )
    assert len({response.content for response in responses if response.status_code == 201}) == 1
    slugs = {a.json()["type"].rpartition("/")[2] for a in responses if a.status_code != 201}
    assert slugs <= {"idempotency-key-in-use"}


async def test_key_in_use_is_rejected_until_the_first_request_ends(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """A retry during the first request is 409; afterwards it gets the stored response."""
    ann, headers = await join(client), key_header()
    async with database.begin() as repositories:
        lock = "SELECT id FROM users WHERE email = $1 FOR UPDATE"
        await repositories.connection.fetch_sql(lock, ann.email)
        first = asyncio.create_task(create_code(ann, headers))
        await wait_until_key_is_locked(database)
        rejected = await create_code(ann, headers)
        assert rejected.status_code == 409
        assert rejected.json()["type"].endswith("/idempotency-key-in-use")
    assert (await first).status_code == 201
    assert (await create_code(ann, headers)).content == (await first).content


async def wait_until_key_is_locked(database: PostgresDatabase) -> None:
    """Wait until a transaction holds the lock of a key."""
    query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    async with asyncio.timeout(5):
        while True:
            async with database.read() as repositories:
                if await repositories.connection.fetch_sql(query):
                    return


async def test_retry_after_a_kill_completes(tmp_path: Path) -> None:
    """After kill -9 every retry completes, and none has two effects."""
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
    for first_response, retried, repeated in zip(before, after, again, strict=True):
        assert retried is not None
        assert repeated is not None
        assert retried.status_code == 201
        assert retried.content == repeated.content
        assert first_response is None or first_response.content == retried.content
