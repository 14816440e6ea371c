"""What must hold when many do the same thing at once, decided by a real PostgreSQL."""

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
from tests.support.fakes.ports import FakeClock
from tests.support.waiting import wait_for_value

HOUR = timedelta(hours=1)


async def statuses(requests: Iterable[Awaitable[httpx.Response]]) -> Counter[int]:
    """Send all at once and count the answers by status."""
    return Counter(answer.status_code for answer in await asyncio.gather(*requests))


async def active_codes(member: Member) -> int:
    """Count the member's codes that are in force."""
    listed = await member.request("GET", "/me/codes", params={"status": "active"})
    return len(listed.json()["items"])


async def test_of_200_creates_at_once_one_wins(client: httpx.AsyncClient) -> None:
    """One is made, 199 are told that there is one."""
    ann = await join(client)
    body = {"lifetime_minutes": 60}
    answers = await statuses(ann.request("POST", "/me/codes", json=body) for _ in range(200))
    assert answers == {201: 1, 409: 199}
    assert await active_codes(ann) == 1


async def test_of_replacing_creates_the_last_one_stays(client: httpx.AsyncClient) -> None:
    """Every create that replaces is made, and one code is in force at the end."""
    ann = await join(client)
    body = {"lifetime_minutes": 60, "replace": True}
    answers = await statuses(ann.request("POST", "/me/codes", json=body) for _ in range(50))
    assert answers == {201: 50}
    assert await active_codes(ann) == 1


async def test_activating_many_codes_at_once_leaves_one(client: httpx.AsyncClient) -> None:
    """Every activation succeeds in turn; never are two in force."""
    ann = await join(client)
    codes = [await ann.issue_code(activate=False) for _ in range(20)]
    paths = [f"/me/codes/{code['id']}/activate" for code in codes for _ in range(10)]
    assert await statuses(ann.request("POST", path) for path in paths) == {200: 200}
    assert await active_codes(ann) == 1


async def test_create_against_activate_against_expiry_leaves_one(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """A code that ran out is revived, another activated, a third made: one is in force."""
    ann = await join(client)
    expired = await ann.issue_code(lifetime_minutes=1)
    other = await ann.issue_code(activate=False)
    clock.advance(minutes=2)
    answers = await statuses(
        ann.request(method, path, json=body)
        for _ in range(20)
        for method, path, body in (
            ("POST", "/me/codes", {"lifetime_minutes": 60}),
            ("POST", f"/me/codes/{other['id']}/activate", None),
            ("PATCH", f"/me/codes/{expired['id']}", {"lifetime_minutes": 60}),
        )
    )
    assert set(answers) <= {200, 201, 409}
    assert await active_codes(ann) == 1


async def test_one_address_in_every_spelling_becomes_one_account(client: httpx.AsyncClient) -> None:
    """200 registrations of one address make one account and one referral."""
    ann = await join(client)
    code = await ann.issue_code()
    address = new_email()
    spellings = [address, address.upper(), address.title(), address.swapcase()] * 50
    answers = await statuses(
        register(client, email, referral_code=code["code"]) for email in spellings
    )
    assert answers == {201: 1, 409: 199}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_the_last_use_of_a_code_is_credited_once(client: httpx.AsyncClient) -> None:
    """Of 100 who register with one use left one joins, and the others have no account."""
    ann = await join(client)
    code = await ann.issue_code(max_uses=1)
    emails = [new_email() for _ in range(100)]
    answers = await asyncio.gather(
        *(register(client, email, referral_code=code["code"]) for email in emails)
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 422: 99}
    assert (await ann.request("GET", f"/me/codes/{code['id']}")).json()["uses"] == 1
    refused = next(
        email for email, answer in zip(emails, answers, strict=True) if answer.status_code == 422
    )
    assert (await log_in(client, refused)).status_code == 400


@pytest.mark.parametrize("ending", ["delete", "deactivate"])
async def test_nobody_is_credited_after_a_code_ended(
    client: httpx.AsyncClient, ending: str
) -> None:
    """What joined before the end counts, what comes after is refused, and nothing in between."""
    ann = await join(client)
    code = await ann.issue_code()
    path = f"/me/codes/{code['id']}"
    end = (
        ann.request("DELETE", path)
        if ending == "delete"
        else ann.request("POST", f"{path}/deactivate")
    )
    joining = [register(client, referral_code=code["code"]) for _ in range(20)]
    ended, *joined = await asyncio.gather(end, *joining)
    assert ended.status_code in {200, 204}
    credited = sum(answer.status_code == 201 for answer in joined)
    assert {answer.status_code for answer in joined} <= {201, 422}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == credited
    assert (await register(client, referral_code=code["code"])).status_code == 422


async def test_a_delete_waits_for_a_registration_that_holds_the_code(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """A registration that finds the code locked by a delete is refused once that commits."""
    ann = await join(client)
    code = await ann.issue_code()
    deleting = await asyncpg.connect(database_url)
    try:
        transaction = deleting.transaction()
        await transaction.start()
        await deleting.execute(
            "UPDATE codes SET enabled = false, deleted_at = now() WHERE id = $1", code["id"]
        )
        joining = asyncio.create_task(register(client, referral_code=code["code"]))
        await until_someone_waits(deleting)
        await transaction.commit()
        assert (await joining).status_code == 422
    finally:
        await deleting.close()


async def test_a_code_that_expires_while_one_waits_is_refused(
    client: httpx.AsyncClient, database_url: str, clock: FakeClock
) -> None:
    """The time that counts is the one after the lock."""
    ann = await join(client)
    code = await ann.issue_code(lifetime_minutes=1)
    holding = await asyncpg.connect(database_url)
    try:
        transaction = holding.transaction()
        await transaction.start()
        await holding.execute("SELECT 1 FROM codes WHERE id = $1 FOR UPDATE", code["id"])
        joining = asyncio.create_task(register(client, referral_code=code["code"]))
        await until_someone_waits(holding)
        clock.advance(minutes=2)
        await transaction.commit()
        assert (await joining).status_code == 422
    finally:
        await holding.close()


async def test_a_block_waits_for_a_registration_that_holds_the_code(
    client: httpx.AsyncClient, database: PostgresDatabase, database_url: str
) -> None:
    """Who joined before it counts; nobody joins after it, nor while it is on its way."""
    ann = await join(client)
    code = await ann.issue_code()
    watcher = await asyncpg.connect(database_url)
    try:
        async with database.begin() as joining:
            held = await joining.codes.lock_enabled_by_text(code["code"])
            assert held is not None
            blocking = asyncio.create_task(block_account(database, ann.email))
            await until_someone_waits(watcher)
            assert await joining.codes.count_use(held.id, SystemClock().now())
        await blocking
    finally:
        await watcher.close()
    assert (await register(client, referral_code=code["code"])).status_code == 422
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_a_registration_that_waits_for_a_block_is_refused(
    client: httpx.AsyncClient, database: PostgresDatabase, database_url: str
) -> None:
    """What was not blocked when it asked for the code is blocked when it has it."""
    ann = await join(client)
    code = await ann.issue_code()
    watcher = await asyncpg.connect(database_url)
    try:
        async with database.begin() as blocking:
            user = await blocking.users.lock(UUID(ann.id))
            assert user is not None
            await blocking.codes.lock_enabled(user.id)
            joining = asyncio.create_task(register(client, referral_code=code["code"]))
            await until_someone_waits(watcher)
            await blocking.users.save(replace(user, blocked_at=SystemClock().now()))
        assert (await joining).status_code == 422
    finally:
        await watcher.close()
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 0


async def test_erasing_and_being_blocked_at_once_leaves_no_free_address_behind_a_block(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Whichever comes first: erased and free, or blocked and taken."""
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
    """Trade a refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post(f"{API}/auth/token", data=form)


async def test_twenty_refreshes_at_once_leave_one_lineage(client: httpx.AsyncClient) -> None:
    """All get a pair; once one of the pairs was used, another one is reuse and ends them all."""
    ann = await join(client)
    first = (await log_in(client, ann.email)).json()["refresh_token"]
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    heir, *others = [answer.json()["refresh_token"] for answer in answers]
    living = (await refresh(client, heir)).json()["refresh_token"]
    latest = (await refresh(client, living)).json()["refresh_token"]
    assert (await refresh(client, others[0])).json()["error"] == "invalid_grant"
    for token in (latest, living, heir, first, *others):
        assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def until_someone_waits(connection: asyncpg.Connection) -> None:
    """Return when another connection of this database waits for a lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    await wait_for_value(lambda: connection.fetchval(query))


async def test_of_twenty_heirs_used_at_once_one_is_served(client: httpx.AsyncClient) -> None:
    """The others are reuse, which ends what the first one began."""
    ann = await join(client)
    first = (await log_in(client, ann.email)).json()["refresh_token"]
    pairs = await asyncio.gather(*(refresh(client, first) for _ in range(20)))
    heirs = [pair.json()["refresh_token"] for pair in pairs]
    answers = await asyncio.gather(*(refresh(client, heir) for heir in heirs))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 19}
    [served] = [answer.json()["refresh_token"] for answer in answers if answer.is_success]
    assert (await refresh(client, served)).status_code == 400


async def test_300_resets_with_one_link_hash_once(
    client: httpx.AsyncClient, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sets the password, and the others are told that the link cannot be used."""
    ann = await join(client)
    secrets, now = RandomTokenGenerator(), datetime.now(UTC)
    token = secrets.new()
    proof = OneTimeToken(secrets.digest(token), UUID(ann.id), TokenPurpose.RESET, now + HOUR)
    async with database.begin() as records:
        await records.one_time_tokens.add(proof)
    hashed: list[str] = []
    hash_password = passwords.ARGON2.hash

    def note(password: str) -> str:
        hashed.append(password)
        return hash_password(password)

    monkeypatch.setattr(passwords, "HASHER", SimpleNamespace(hash=note))
    bodies = [{"token": token, "new_password": f"staple battery {n}"} for n in range(300)]
    path = f"{API}/auth/password/reset"
    assert await statuses(client.post(path, json=body) for body in bodies) == {204: 1, 422: 299}
    assert len(hashed) == 1
    monkeypatch.undo()
    assert (await log_in(client, ann.email, hashed[0])).status_code == 200
