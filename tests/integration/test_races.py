"""Race conditions, decided by a real PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import asyncpg
import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security import passwords
from referral.adapters.system import RandomTokenGenerator, SystemClock
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.errors import NotFound
from tests.support.api_client import (
    API,
    PASSWORD,
    Member,
    block_account,
    join,
    log_in,
    new_email,
    register,
)
from tests.support.fakes.system import FakeClock
from tests.support.waiting import wait_for_value

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("statistics_agree")


async def send_at_once(requests: Iterable[Awaitable[httpx.Response]]) -> Counter[int]:
    """Send requests concurrently; return the responses by status."""
    return Counter(response.status_code for response in await asyncio.gather(*requests))


async def count_active_codes(member: Member) -> int:
    """Count the active codes of a member."""
    listed = await member.request("GET", "/me/codes", params={"status": "active"})
    return len(listed.json()["items"])


async def test_one_of_200_concurrent_creates_wins(client: httpx.AsyncClient) -> None:
    """One code is created, and 199 requests are 409."""
    ann = await join(client)
    body = {"lifetime_minutes": 60}
    statuses = await send_at_once(ann.request("POST", "/me/codes", json=body) for _ in range(200))
    assert statuses == {201: 1, 409: 199}
    assert await count_active_codes(ann) == 1


async def test_concurrent_replacing_creates_leave_one_active_code(
    client: httpx.AsyncClient,
) -> None:
    """Every request succeeds, and one code is active."""
    ann = await join(client)
    body = {"lifetime_minutes": 60, "replace": True}
    statuses = await send_at_once(ann.request("POST", "/me/codes", json=body) for _ in range(50))
    assert statuses == {201: 50}
    assert await count_active_codes(ann) == 1


async def test_concurrent_activations_leave_one_active_code(client: httpx.AsyncClient) -> None:
    """Every request succeeds, and one code is active."""
    ann = await join(client)
    codes = [await ann.issue_code(activate=False) for _ in range(20)]
    paths = [f"/me/codes/{code['id']}/activate" for code in codes for _ in range(10)]
    assert await send_at_once(ann.request("POST", path) for path in paths) == {200: 200}
    assert await count_active_codes(ann) == 1


async def test_concurrent_create_activate_and_renew_leave_one_active_code(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """An expired code is renewed, another activated, a third created: one is active."""
    ann = await join(client)
    expired = await ann.issue_code(lifetime_minutes=1)
    other = await ann.issue_code(activate=False)
    clock.advance(minutes=2)
    statuses = await send_at_once(
        ann.request(method, path, json=body)
        for _ in range(20)
        for method, path, body in (
            ("POST", "/me/codes", {"lifetime_minutes": 60}),
            ("POST", f"/me/codes/{other['id']}/activate", None),
            ("PATCH", f"/me/codes/{expired['id']}", {"lifetime_minutes": 60}),
        )
    )
    assert set(statuses) <= {200, 201, 409}
    assert await count_active_codes(ann) == 1


async def test_concurrent_registrations_of_one_email_make_one_account(
    client: httpx.AsyncClient,
) -> None:
    """Of 200 registrations in four spellings one succeeds, with one referral."""
    ann = await join(client)
    code = await ann.issue_code()
    email = new_email()
    spellings = [email, email.upper(), email.title(), email.swapcase()] * 50
    statuses = await send_at_once(
        register(client, spelling, referral_code=code["code"]) for spelling in spellings
    )
    assert statuses == {201: 1, 409: 199}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_last_use_of_a_code_is_credited_once(client: httpx.AsyncClient) -> None:
    """Of 100 registrations for one use one succeeds, and the others make no account."""
    ann = await join(client)
    code = await ann.issue_code(max_uses=1)
    emails = [new_email() for _ in range(100)]
    responses = await asyncio.gather(
        *(register(client, email, referral_code=code["code"]) for email in emails)
    )
    assert Counter(response.status_code for response in responses) == {201: 1, 422: 99}
    assert (await ann.request("GET", f"/me/codes/{code['id']}")).json()["uses"] == 1
    rejected = next(
        email
        for email, response in zip(emails, responses, strict=True)
        if response.status_code == 422
    )
    assert (await log_in(client, rejected)).status_code == 400


@pytest.mark.parametrize("ending", ["delete", "deactivate"])
async def test_no_registration_is_credited_after_the_end_of_a_code(
    client: httpx.AsyncClient, ending: str
) -> None:
    """Registrations before the end count, later ones are 422."""
    ann = await join(client)
    code = await ann.issue_code()
    path = f"/me/codes/{code['id']}"
    end = (
        ann.request("DELETE", path)
        if ending == "delete"
        else ann.request("POST", f"{path}/deactivate")
    )
    registrations = [register(client, referral_code=code["code"]) for _ in range(20)]
    ended, *registered = await asyncio.gather(end, *registrations)
    assert ended.status_code in {200, 204}
    credited = sum(response.status_code == 201 for response in registered)
    assert {response.status_code for response in registered} <= {201, 422}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == credited
    assert (await register(client, referral_code=code["code"])).status_code == 422


async def test_registration_waits_for_a_delete(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """A registration that waits for the row of a deleted code is rejected."""
    ann = await join(client)
    code = await ann.issue_code()
    deleting = await asyncpg.connect(database_url)
    try:
        transaction = deleting.transaction()
        await transaction.start()
        await deleting.execute(
            "UPDATE codes SET enabled = false, deleted_at = now() WHERE id = $1", code["id"]
        )
        registration = asyncio.create_task(register(client, referral_code=code["code"]))
        await wait_until_lock_is_awaited(deleting)
        await transaction.commit()
        assert (await registration).status_code == 422
    finally:
        await deleting.close()


async def test_code_that_expires_during_the_wait_is_rejected(
    client: httpx.AsyncClient, database_url: str, clock: FakeClock
) -> None:
    """The time after the lock counts."""
    ann = await join(client)
    code = await ann.issue_code(lifetime_minutes=1)
    holding = await asyncpg.connect(database_url)
    try:
        transaction = holding.transaction()
        await transaction.start()
        await holding.execute("SELECT 1 FROM codes WHERE id = $1 FOR UPDATE", code["id"])
        registration = asyncio.create_task(register(client, referral_code=code["code"]))
        await wait_until_lock_is_awaited(holding)
        clock.advance(minutes=2)
        await transaction.commit()
        assert (await registration).status_code == 422
    finally:
        await holding.close()


async def test_block_waits_for_a_registration(
    client: httpx.AsyncClient, database: PostgresDatabase, database_url: str
) -> None:
    """A registration before the block counts, a later one is rejected."""
    ann = await join(client)
    code = await ann.issue_code()
    watcher = await asyncpg.connect(database_url)
    try:
        async with database.begin() as joining:
            held = await joining.codes.lock_enabled_by_text(code["code"])
            assert held is not None
            blocking = asyncio.create_task(block_account(database, ann.email))
            await wait_until_lock_is_awaited(watcher)
            assert await joining.codes.count_use(held.id, SystemClock().now())
        await blocking
    finally:
        await watcher.close()
    assert (await register(client, referral_code=code["code"])).status_code == 422
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_registration_waits_for_a_block(
    client: httpx.AsyncClient, database: PostgresDatabase, database_url: str
) -> None:
    """A registration that waits for the block of the referrer is rejected."""
    ann = await join(client)
    code = await ann.issue_code()
    watcher = await asyncpg.connect(database_url)
    try:
        async with database.begin() as blocking:
            user = await blocking.users.lock(UUID(ann.id))
            assert user is not None
            await blocking.codes.lock_enabled(user.id)
            registration = asyncio.create_task(register(client, referral_code=code["code"]))
            await wait_until_lock_is_awaited(watcher)
            await blocking.users.save(replace(user, blocked_at=SystemClock().now()))
        assert (await registration).status_code == 422
    finally:
        await watcher.close()
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 0


async def test_concurrent_erasure_and_block_have_one_winner(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The account is erased and its e-mail free, or blocked and its e-mail taken."""
    for _ in range(10):
        ann = await join(client)
        erased, blocked = await asyncio.gather(
            ann.request("DELETE", "/me", json={"password": PASSWORD}),
            block_account(database, ann.email),
            return_exceptions=True,
        )
        assert isinstance(erased, httpx.Response)
        was_blocked = not isinstance(blocked, BaseException)
        assert was_blocked or isinstance(blocked, NotFound)
        assert erased.status_code == (403 if was_blocked else 204)
        again = await register(client, ann.email)
        assert again.status_code == (409 if was_blocked else 201)


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Use a refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post(f"{API}/auth/token", data=form)


async def test_twenty_concurrent_refreshes_leave_one_lineage(client: httpx.AsyncClient) -> None:
    """All get tokens; when one of them is used, the use of another ends the session."""
    ann = await join(client)
    first = (await log_in(client, ann.email)).json()["refresh_token"]
    responses = await asyncio.gather(*(refresh(client, first) for _ in range(20)))
    assert [response.status_code for response in responses] == [200] * 20
    chosen, *others = [response.json()["refresh_token"] for response in responses]
    second = (await refresh(client, chosen)).json()["refresh_token"]
    latest = (await refresh(client, second)).json()["refresh_token"]
    assert (await refresh(client, others[0])).json()["error"] == "invalid_grant"
    for token in (latest, second, chosen, first, *others):
        assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def wait_until_lock_is_awaited(connection: asyncpg.Connection) -> None:
    """Wait until another connection of this database waits for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    await wait_for_value(lambda: connection.fetchval(query))


async def test_one_of_twenty_sibling_tokens_is_accepted(client: httpx.AsyncClient) -> None:
    """The others are reuse, which ends the session."""
    ann = await join(client)
    first = (await log_in(client, ann.email)).json()["refresh_token"]
    pairs = await asyncio.gather(*(refresh(client, first) for _ in range(20)))
    siblings = [pair.json()["refresh_token"] for pair in pairs]
    responses = await asyncio.gather(*(refresh(client, sibling) for sibling in siblings))
    assert Counter(response.status_code for response in responses) == {200: 1, 400: 19}
    [accepted] = [response.json()["refresh_token"] for response in responses if response.is_success]
    assert (await refresh(client, accepted)).status_code == 400


async def test_300_concurrent_resets_hash_once(
    client: httpx.AsyncClient, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reset succeeds, and 299 are 422 without a hash."""
    ann = await join(client)
    secrets, now = RandomTokenGenerator(), datetime.now(UTC)
    token = secrets.new()
    one_time_token = OneTimeToken(
        secrets.digest(token), UUID(ann.id), TokenPurpose.RESET, now + HOUR
    )
    async with database.begin() as repositories:
        await repositories.one_time_tokens.add(one_time_token)
    hashed: list[str] = []
    hash_password = passwords.ARGON2.hash

    def count_hash(password: str) -> str:
        hashed.append(password)
        return hash_password(password)

    monkeypatch.setattr(passwords, "ARGON2", SimpleNamespace(hash=count_hash))
    bodies = [{"token": token, "new_password": f"staple battery {n}"} for n in range(300)]
    path = f"{API}/auth/password/reset"
    assert await send_at_once(client.post(path, json=body) for body in bodies) == {204: 1, 422: 299}
    assert len(hashed) == 1
    monkeypatch.undo()
    assert (await log_in(client, ann.email, hashed[0])).status_code == 200
