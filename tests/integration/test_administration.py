"""Administration over HTTP: decisions, blocks and clients, alone and in races."""

import asyncio
import json
import signal
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import RandomTokenGenerator, SystemClock
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.risk import RiskSignal
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, Member, join, new_email, register
from tests.support.database_dump import dump_tables
from tests.support.fakes.system import FakeClock
from tests.support.service_process import COMMAND, environment, run_command
from tests.web.test_authorization import promote

REASON = {"reason": "Checked by phone."}
ROUNDS = range(8)

pytestmark = pytest.mark.usefixtures("statistics_agree")


@pytest.fixture
async def client(settings: Settings, serve: ServiceFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that requires the confirmation of addresses."""
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        yield client


@pytest.fixture
async def admin(client: httpx.AsyncClient, database: PostgresDatabase) -> Member:
    """An admin."""
    admin = await join(client)
    await promote(admin, database)
    return admin


async def records(admin: Member, **wanted: str) -> list[dict[str, Any]]:
    """Return the records of the audit log, newest first."""
    page = await admin.request("GET", "/audit", params={"limit": 100} | wanted)
    assert page.status_code == 200, page.text
    items: list[dict[str, Any]] = page.json()["items"]
    return items


async def events_about(database: PostgresDatabase, text: str) -> list[str]:
    """Return the types of the events whose data has a text."""
    sql = (
        "SELECT type FROM event_outbox WHERE data::text LIKE $1 "
        "UNION ALL SELECT type FROM events WHERE data::text LIKE $1"
    )
    async with database.read() as repositories:
        rows = await repositories.connection.fetch_sql(sql, f"%{text}%")
    return sorted(row["type"] for row in rows)


async def find_referral(admin: Member, user: Member, code: dict[str, Any]) -> dict[str, Any]:
    """Return the referral of a user."""
    listed = await admin.request("GET", "/referrals", params={"code": code["code"], "limit": 100})
    [referral] = [item for item in listed.json()["items"] if item["id"] == user.id]
    return dict(referral)


async def uses(owner: Member, code: dict[str, Any]) -> int:
    """Return the uses of a code."""
    return int((await owner.request("GET", f"/me/codes/{code['id']}")).json()["uses"])


async def test_referral_is_listed_and_decided(client: httpx.AsyncClient, admin: Member) -> None:
    """The list has everything; a decision is final, and in the audit log."""
    owner = await join(client)
    code = await owner.issue_code(max_uses=1)
    bob = await join(client, referral_code=code["code"])
    referral = await find_referral(admin, bob, code)
    expected = {
        "referrer_id": owner.id,
        "id": bob.id,
        "email": bob.email,
        "status": "pending",
        "code": code["code"],
        "risk": {
            "level": "medium",
            "signals": [{"code": "same-network", "detail": RiskSignal.NETWORK_OF_REFERRER.detail}],
        },
        "held": False,
        "reason": None,
    }
    assert referral.items() >= expected.items()
    path = f"/referrals/{referral['referral_id']}"
    rejected = await admin.request("POST", f"{path}/reject", json=REASON)
    assert rejected.json() == referral | {"status": "rejected"} | REASON
    assert await uses(owner, code) == 0
    again = await admin.request("POST", f"{path}/confirm", json=REASON)
    assert (again.status_code, again.json()["code"]) == (409, "referral-decided")
    [record] = await records(admin, subject=referral["referral_id"])
    request_id = rejected.headers["X-Request-ID"]
    assert (
        record.items()
        >= {
            "actor": admin.id,
            "actor_type": "user",
            "action": "referral.rejected",
            "reason": REASON["reason"],
            "request_id": request_id,
        }.items()
    )


@pytest.mark.parametrize(
    ("filters", "is_found"),
    [
        ({"status": "pending"}, True),
        ({"status": "confirmed"}, False),
        ({"held": "false"}, True),
        ({"held": "true"}, False),
        ({"since": "2020-01-01T00:00:00Z"}, True),
        ({"until": "2020-01-01T00:00:00+01:00"}, False),
        ({"code": "null"}, False),
    ],
)
async def test_referrals_are_filtered(
    client: httpx.AsyncClient,
    admin: Member,
    filters: dict[str, str],
    is_found: bool,  # noqa: FBT001 - of the table
) -> None:
    """By each filter, together with the referrer."""
    owner = await join(client)
    code = await owner.issue_code()
    await join(client, referral_code=code["code"])
    wanted = {"referrer_id": owner.id} | filters
    found = await admin.request("GET", "/referrals", params=wanted)
    assert found.status_code == 200, found.text
    assert bool(found.json()["items"]) == is_found


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"/referrals?{name}=null"
            for name in ("status", "referrer_id", "held", "since", "until")
        ),
        *("/referrals?referrer_id=x", "/referrals?held=maybe", "/referrals?since=2026-01-01"),
        *("/referrals?since=2026-01-01T00:00:00", "/referrals?until=1", "/referrals?cursor=null"),
        *("/referrals?since=0001-01-01T00:00:00%2B10:00", "/codes?user_id=null", "/codes?status=x"),
        *("/audit?actor=null", "/audit?subject=%00", "/audit?action=a%20b", "/audit?since=x"),
        *("/audit?action=null", "/audit?action=user.Blocked", "/audit?actor=" + "x" * 101),
        "/clients?limit=0",
    ],
)
async def test_invalid_filter_is_rejected(admin: Member, path: str) -> None:
    """Never ignored: a list of everything would look like the answer."""
    response = await admin.request("GET", path)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["parameter"] in path


async def test_unknown_action_names_the_known_ones(admin: Member) -> None:
    """An empty list would look like the answer."""
    response = await admin.request("GET", "/audit", params={"action": "user.block"})
    assert response.status_code == 422
    assert "user.blocked" in response.json()["errors"][0]["detail"]


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "see ann@example.com", "\0", 5, None])
async def test_reason_is_validated(client: httpx.AsyncClient, admin: Member, reason: Any) -> None:
    """The pointer names it, and nothing changes."""
    owner = await join(client)
    for path in (f"/users/{owner.id}/block", f"/referrals/{uuid4()}/reject"):
        response = await admin.request("POST", path, json={"reason": reason})
        assert response.status_code == 422, response.text
        assert response.json()["errors"][0]["pointer"] == "/reason"
    assert (await owner.request("GET", "/me")).status_code == 200
    assert await records(admin, subject=owner.id) == []


async def test_pages_of_the_audit_log_are_complete(
    client: httpx.AsyncClient, admin: Member, clock: FakeClock
) -> None:
    """Newest first, by cursors that belong to the filters."""
    owner = await join(client)
    for path in ("block", "unblock") * 3:
        clock.advance(seconds=1)
        changed = await admin.request("POST", f"/users/{owner.id}/{path}", json=REASON)
        assert changed.json()["blocked"] == (path == "block")
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while len(found) < 6:
        params = {"subject": owner.id, "limit": 4} | cursor
        page = (await admin.request("GET", "/audit", params=params)).json()
        found += page["items"]
        cursor = {"cursor": page["next_cursor"]}
        if page["next_cursor"] is None:
            break
        other = await admin.request("GET", "/audit", params=cursor)
        assert other.status_code == 422
    assert [item["action"] for item in found] == ["user.unblocked", "user.blocked"] * 3
    assert await records(admin, subject=owner.id) == found
    between = {"since": found[4]["at"], "until": found[1]["at"]}
    assert await records(admin, subject=owner.id, **between) == found[2:5]


async def test_client_of_the_api_is_an_actor(
    client: httpx.AsyncClient, admin: Member, clock: FakeClock
) -> None:
    """It is created, used, rotated and deleted, and each step is recorded."""
    body = {"name": f"shop {uuid4()}", "scopes": ["referrals:write", "referrals:read"]}
    created = (await admin.request("POST", "/clients", json=body)).json()
    taken = await admin.request("POST", "/clients", json=body)
    assert (taken.status_code, taken.json()["code"]) == (409, "client-name-taken")
    form = {"grant_type": "client_credentials"}

    async def get_token(secret: str) -> httpx.Response:
        basic = (created["id"], secret)
        return await client.post(f"{API}/auth/token", data=form, auth=basic)

    tokens = (await get_token(created["client_secret"])).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    owner, bob = await join(client), await join(client)
    referrer = {"referrer_id": owner.id} | REASON
    url = f"{API}/users/{bob.id}/referrer"
    joined = await client.put(url, json=referrer, headers=headers)
    assert joined.json()["referrer"]["id"] == owner.id
    assert (await client.put(url, json=referrer, headers=headers)).status_code == 409
    clock.advance(seconds=1)
    rotated = (await admin.request("POST", f"/clients/{created['id']}/rotate-secret")).json()
    assert (await get_token(created["client_secret"])).status_code == 401
    assert (await get_token(rotated["client_secret"])).status_code == 200
    clock.advance(seconds=1)
    assert (await admin.request("DELETE", f"/clients/{created['id']}")).status_code == 204
    assert (await get_token(rotated["client_secret"])).status_code == 401
    actions = [item["action"] for item in await records(admin, subject=created["id"])]
    assert actions == ["client.deleted", "client.secret-rotated", "client.created"]
    [record] = await records(admin, actor=created["id"])
    assert (record["actor_type"], record["subject"]) == ("client", bob.id)


async def test_two_admins_decide_once(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase
) -> None:
    """One of the decisions is stored, told and recorded, the others are refused."""
    owner = await join(client)
    code = await owner.issue_code()
    for _ in ROUNDS:
        bob = await join(client, referral_code=code["code"])
        before = await uses(owner, code)
        referral = await find_referral(admin, bob, code)
        path = f"/referrals/{referral['referral_id']}"
        responses = await asyncio.gather(
            *(
                admin.request("POST", f"{path}/{to}", json=REASON)
                for to in ("confirm", "reject") * 3
            )
        )
        assert Counter(each.status_code for each in responses) == {200: 1, 409: 5}
        [decided] = [each.json() for each in responses if each.status_code == 200]
        assert (await find_referral(admin, bob, code)) == decided
        [record] = await records(admin, subject=referral["referral_id"])
        assert record["action"] == f"referral.{decided['status']}"
        assert await uses(owner, code) == before - (decided["status"] == "rejected")
        told = await events_about(database, referral["referral_id"])
        assert told == sorted(["referral.created", record["action"]])


@pytest.mark.parametrize("decision", ["confirm", "reject"])
async def test_admin_and_the_confirmation_agree(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase, decision: str
) -> None:
    """Whoever is first, the admin's decision stands, with one record and no event twice."""
    owner = await join(client)
    code = await owner.issue_code()
    for _ in ROUNDS:
        bob = await join(client, referral_code=code["code"])
        before = await uses(owner, code)
        referral = await find_referral(admin, bob, code)
        path = f"/referrals/{referral['referral_id']}/{decision}"
        decided, confirmed = await asyncio.gather(
            admin.request("POST", path, json=REASON), confirm_address(database, bob)
        )
        assert (decided.status_code, confirmed) == (200, 204)
        status = f"{decision}ed"
        assert (await find_referral(admin, bob, code))["status"] == status
        assert len(await records(admin, subject=referral["referral_id"])) == 1
        assert await uses(owner, code) == before - (decision == "reject")
        told = Counter(await events_about(database, referral["referral_id"]))
        assert told[f"referral.{status}"] == 1
        assert max(told.values()) == 1


@pytest.mark.parametrize("decision", ["confirm", "reject"])
async def test_admin_and_the_erasure_agree(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase, decision: str
) -> None:
    """The erasure always succeeds, and leaves the decision, the record and no address."""
    owner = await join(client)
    code = await owner.issue_code()
    for _ in ROUNDS:
        bob = await join(client, referral_code=code["code"])
        before = await uses(owner, code)
        referral = await find_referral(admin, bob, code)
        path = f"/referrals/{referral['referral_id']}/{decision}"
        decided, erased = await asyncio.gather(
            admin.request("POST", path, json=REASON),
            bob.request("DELETE", "/me", json={"password": PASSWORD}),
        )
        assert erased.status_code == 204
        assert decided.status_code in ({200, 404} if decision == "confirm" else {200})
        is_confirmed = decided.status_code == 200 and decision == "confirm"
        found = await find_referral(admin, bob, code)
        assert (found["status"] == "confirmed") == is_confirmed
        assert found["email"] is None
        assert await uses(owner, code) == before - (not is_confirmed)
        listed = await records(admin, subject=referral["referral_id"])
        assert len(listed) == (decided.status_code == 200)
        told = Counter(await events_about(database, referral["referral_id"]))
        assert max(told.values()) == 1
        assert bob.email not in await dump_tables(database)


async def test_blocks_under_load_are_one_block(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase
) -> None:
    """Beside logins and registrations: one record, one event, no session and no use afterwards."""
    owner = await join(client)
    code = await owner.issue_code()
    responses = await asyncio.gather(
        *(admin.request("POST", f"/users/{owner.id}/block", json=REASON) for _ in range(10)),
        *(register(client, new_email(), referral_code=code["code"]) for _ in range(5)),
        *(owner.log_in_again() for _ in range(3)),
        return_exceptions=True,
    )
    blocks = [each for each in responses[:10] if isinstance(each, httpx.Response)]
    assert [each.status_code for each in blocks] == [200] * 10
    assert {each.json()["blocked"] for each in blocks} == {True}
    [record] = await records(admin, subject=owner.id)
    assert record["action"] == "user.blocked"
    assert (await events_about(database, owner.id)).count("user.blocked") == 1
    async with database.read() as repositories:
        assert await repositories.sessions.list_all(UUID(owner.id)) == []
    unusable = await register(client, new_email(), referral_code=code["code"])
    assert unusable.status_code == 422


async def test_erased_admin_leaves_records_and_no_address(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase, clock: FakeClock
) -> None:
    """Nor does a user whom the admin blocked, whatever the request id was."""
    owner, other = await join(client), await join(client)
    await promote(other, database)
    for path in ("block", "unblock"):
        headers = admin.headers | {"X-Request-ID": owner.email}
        clock.advance(seconds=1)
        done = replace(admin, headers=headers)
        await done.request("POST", f"/users/{owner.id}/{path}", json=REASON)
    clock.advance(seconds=1)
    for member in (owner, admin):
        if member is owner:
            member = await owner.log_in_again()  # noqa: PLW2901 - the block ended the session
        erased = await member.request("DELETE", "/me", json={"password": PASSWORD})
        assert erased.status_code == 204
    listed = await records(other, subject=owner.id)
    assert [item["action"] for item in listed] == ["user.erased", "user.unblocked", "user.blocked"]
    assert [item["actor"] for item in listed] == [owner.id, admin.id, admin.id]
    assert [item["request_id"] for item in listed[1:]] == [None, None]
    dump = await dump_tables(database)
    assert owner.email not in dump
    assert admin.email not in dump


async def confirm_address(database: PostgresDatabase, user: Member) -> int:
    """Confirm a user's address by a new link; return the status."""
    tokens, clock = RandomTokenGenerator(), SystemClock()
    token, until = tokens.new(), clock.now() + timedelta(hours=1)
    async with database.begin() as repositories:
        digest, purpose = tokens.digest(token), TokenPurpose.CONFIRM
        await repositories.one_time_tokens.add(OneTimeToken(digest, UUID(user.id), purpose, until))
    body = {"token": token}
    return (await user.request("POST", "/auth/email/confirm", json=body)).status_code


async def test_operator_administers_by_commands(
    client: httpx.AsyncClient, admin: Member, settings: Settings
) -> None:
    """Each change is recorded with the operator as actor; errors are one line."""
    variables = {
        "database_url": settings.database_url or "",
        "signing_key_file": settings.signing_key_file,
        "log_level": "error",
    }

    async def run(*arguments: str, status: int = 0) -> str:
        done = await asyncio.to_thread(
            run_command, settings.data_dir, "admin", *arguments, **variables
        )
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    owner = await join(client)
    code = await owner.issue_code()
    bob = await join(client, referral_code=code["code"])
    found = json.loads(await run("find", owner.email.upper(), "--json"))
    assert (found["id"], found["referral_count"]) == (owner.id, 1)
    shown = await run("find", owner.id)
    assert owner.email in shown
    assert "None" not in shown
    assert ["email_verified", "no"] in [line.split() for line in shown.splitlines()]
    assert ["blocked_at", "-"] in [line.split() for line in shown.splitlines()]
    assert "No user has this" in await run("find", str(uuid4()), status=1)
    assert "must not contain" in await run("block", bob.id, "--reason", "a@b", status=1)
    await run("block", bob.email, "--reason", "Spam.")
    await run("unblock", bob.id, "--reason", "A mistake.")
    [referral] = json.loads(await run("referrals", "--status", "pending", "--limit", "1", "--json"))
    assert referral == await find_referral(admin, bob, code)
    assert "medium: same-network" in await run("referrals", "--status", "pending")
    await run("reject", referral["referral_id"], "--reason", "Spam.")
    decided = await run("confirm", referral["referral_id"], "--reason", "No spam.", status=1)
    assert "decided" in decided
    tail = (await run("audit", "--subject", bob.id)).splitlines()
    assert ["operator  user.blocked" in line for line in tail] == [True, False]
    assert tail[1].endswith(f"operator  user.unblocked  {bob.id}  'A mistake.'")
    listed = json.loads(await run("audit", "--subject", referral["referral_id"], "--json"))
    assert [each["actor_type"] for each in listed] == ["operator"]
    assert listed == await records(admin, subject=referral["referral_id"])
    missing = await run("erase", "nobody@example.com", bob.email, status=1)
    assert "No user has the address or id nobody@example.com." in missing
    assert "No user has this" in await run("find", bob.id, status=1)
    assert (await records(admin, subject=bob.id))[0]["actor_type"] == "operator"
    counted = json.loads(await run("statistics", "--json"))
    end = datetime.fromisoformat(counted[-1]["start"]) + timedelta(days=1)
    period = {"from": counted[0]["start"][:10], "to": f"{end:%Y-%m-%d}"}
    response = await admin.request("GET", "/statistics", params=period | {"interval": "day"})
    assert (len(counted), counted) == (30, response.json()["items"])
    assert counted[-1]["rejected"] > 0
    dates = [part for name, date in period.items() for part in (f"--{name}", date)]
    table = [line.split() for line in (await run("statistics", *dates)).splitlines()]
    rows = [[row["start"][:10], *(str(row[name]) for name in table[0][1:])] for row in counted]
    assert table[1:] == rows
    assert "later" in await run(
        "statistics", "--from", "2026-11-02", "--to", "2026-11-01", status=1
    )


async def test_audit_log_is_followed(
    client: httpx.AsyncClient, admin: Member, settings: Settings, clock: FakeClock
) -> None:
    """New records are printed as they come, also one that was committed late; Ctrl-C ends it."""
    owner = await join(client)
    for path in ("block", "unblock"):
        clock.advance(seconds=1)
        await admin.request("POST", f"/users/{owner.id}/{path}", json=REASON)
    variables = environment(
        settings.data_dir,
        database_url=settings.database_url or "",
        signing_key_file=settings.signing_key_file,
        log_level="error",
    )
    options = ("--follow", "--limit", "1", "--subject", owner.id)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "admin", "audit", *options, env=variables, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    try:
        assert b"user.unblocked" in await process.stdout.readline()
        clock.advance(seconds=-10)
        await admin.request("POST", f"/users/{owner.id}/block", json={"reason": "Again."})
        line = (await process.stdout.readline()).decode()
        assert line.endswith(f"{admin.id}  user.blocked  {owner.id}  'Again.'\n")
    finally:
        process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (out, b"Traceback" in err) == (b"", False)
