"""Risk of referrals over HTTP: held referrals, races, erasure, and what nobody learns."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.keys import HmacFingerprinter, KeyRing
from referral.core.entities.clients import Scope
from referral.core.entities.subject_tokens import TOKEN_EXCHANGE_GRANT, SubjectTokenType
from referral.core.policies.risk_assessment import network_digests
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.integration.test_administration import (
    confirm_address,
    events_about,
    find_referral,
    records,
)
from tests.support.api_client import (
    API,
    PASSWORD,
    Member,
    create_client,
    join,
    log_in,
    new_email,
)
from tests.support.database_dump import dump_tables
from tests.web.test_authorization import promote

REASON = {"reason": "Checked by phone."}
NETWORKS = (f"10.{number >> 8}.{number & 255}.1" for number in count())
"""Networks from which nobody came yet."""


@pytest.fixture
async def client(settings: Settings, serve: ServiceFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service behind a proxy, which requires the confirmation of addresses."""
    changed = msgspec.structs.replace(
        settings,
        email_verification="on",
        risk_hold="medium",
        trusted_proxies=("127.0.0.1",),
        referrals_visibility="open",
    )
    async with serve(changed) as client:
        yield client


@pytest.fixture
async def admin(client: httpx.AsyncClient, database: PostgresDatabase) -> Member:
    """An admin."""
    admin = await join(client)
    await promote(admin, database)
    return admin


async def register_from(
    client: httpx.AsyncClient, network: str, email: str | None = None, **rest: Any
) -> httpx.Response:
    """Register from a network."""
    body = {"email": email or new_email(), "password": PASSWORD} | rest
    headers = {"X-Forwarded-For": network}
    return await client.post(f"{API}/auth/register", json=body, headers=headers)


async def join_from(client: httpx.AsyncClient, network: str, **rest: Any) -> Member:
    """Register and log in from a network."""
    email = new_email()
    created = await register_from(client, network, email, **rest)
    assert created.status_code == 201, created.text
    form = {"grant_type": "password", "username": email, "password": PASSWORD}
    tokens = await client.post(f"{API}/auth/token", data=form, headers={"X-Forwarded-For": network})
    authorization = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    return Member(client, created.json()["id"], email, authorization)


async def mail_jobs(database: PostgresDatabase, referral_id: str) -> int:
    """Return how many mails about a referral are queued."""
    query = "SELECT count(*) FROM pgqueuer WHERE convert_from(payload, 'UTF8') LIKE $1"
    async with database.read() as repositories:
        rows = await repositories.connection.fetch_sql(query, f"%{referral_id}%")
    return int(rows[0][0])


async def count_networks(database: PostgresDatabase, user: Member) -> int:
    """Return how many networks of a user are stored."""
    async with database.read() as repositories:
        return len(await repositories.networks.list_all(UUID(user.id)))


async def exchange_token(
    client: httpx.AsyncClient, database: PostgresDatabase, user: Member
) -> dict[str, str]:
    """Return the header of a token by which a client acts for a user."""
    shop, secret = await create_client(database, f"shop {uuid4()}", [Scope.USERS_ACT])
    form = {
        "grant_type": TOKEN_EXCHANGE_GRANT,
        "subject_token": user.id,
        "subject_token_type": SubjectTokenType.USER_ID,
    }
    tokens = await client.post(f"{API}/auth/token", data=form, auth=(str(shop.id), secret))
    assert tokens.status_code == 200, tokens.text
    return {"Authorization": f"Bearer {tokens.json()['access_token']}"}


@pytest.mark.parametrize(("decision", "uses"), [("confirm", 1), ("reject", 0)])
async def test_flagged_referral_waits_for_an_admin(
    client: httpx.AsyncClient,
    admin: Member,
    database: PostgresDatabase,
    decision: str,
    uses: int,
) -> None:
    """From the registration over the confirmed address to the decision, its event and its mail."""
    home = next(NETWORKS)
    owner = await join_from(client, home)
    code = await owner.issue_code()
    bob = await join_from(client, home, referral_code=code["code"])
    assert await confirm_address(database, bob) == 204
    flagged = await find_referral(admin, bob, code)
    assert (flagged["status"], flagged["held"], flagged["reason"]) == ("pending", True, None)
    assert flagged["risk"]["level"] == "medium"
    [signal] = flagged["risk"]["signals"]
    assert signal["code"] == "same-network"
    assert "referrer" in signal["detail"]
    wanted = {"held": "true", "referrer_id": owner.id}
    listed = await admin.request("GET", "/referrals", params=wanted)
    assert listed.json()["items"] == [flagged]
    referral_id = flagged["referral_id"]
    assert await events_about(database, referral_id) == ["referral.created"]
    assert await mail_jobs(database, referral_id) == 0
    decided = await admin.request("POST", f"/referrals/{referral_id}/{decision}", json=REASON)
    status = f"{decision}ed"
    assert decided.json() == flagged | {"status": status, "held": False} | REASON
    assert (await admin.request("GET", "/referrals", params=wanted)).json()["items"] == []
    assert sorted(await events_about(database, referral_id)) == sorted(
        ["referral.created", f"referral.{status}"]
    )
    assert await mail_jobs(database, referral_id) == uses
    assert [each["action"] for each in await records(admin, subject=referral_id)] == [
        f"referral.{status}"
    ]
    assert (await owner.request("GET", f"/me/codes/{code['id']}")).json()["uses"] == uses


async def test_members_learn_nothing(client: httpx.AsyncClient, database: PostgresDatabase) -> None:
    """Neither who is flagged nor the referrer: every response is as for an unsuspicious user."""
    home = next(NETWORKS)
    owner = await join_from(client, home)
    code = await owner.issue_code()
    seen: list[dict[str, Any]] = []
    for network in (home, next(NETWORKS)):
        bob = await join_from(client, network, referral_code=code["code"])
        cleo = await join_from(client, network)
        claim = {"referral_code": code["code"]}
        claimed = await cleo.request("POST", "/me/referrer", json=claim)
        responses = {
            "registered": await register_from(client, network, **claim),
            "claimed": claimed,
            "me": await bob.request("GET", "/me"),
            "export": await bob.request("GET", "/me/export"),
            "listed": await owner.request("GET", "/me/referrals?limit=1"),
            "seen by others": await bob.request("GET", f"/users/{owner.id}/referrals?limit=1"),
            "referrer": await owner.request("GET", "/me"),
            "referrer's export": await owner.request("GET", "/me/export"),
            "code": await owner.request("GET", f"/me/codes/{code['id']}"),
        }
        assert await confirm_address(database, bob) == 204
        seen.append({name: shape(each) for name, each in responses.items()})
    assert seen[0] == seen[1]
    for text in ("risk", "held", "signal", "same-network"):
        assert text not in str(seen)


def shape(response: httpx.Response) -> Any:
    """Return the status, the names of the headers, and the body without values but states."""
    return response.status_code, sorted(response.headers), _shape(response.json())


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value[:1]]
    return value if value in {"pending", "confirmed", "rejected", None, True, False} else "…"


async def test_registrations_at_once_from_one_network_are_counted(
    client: httpx.AsyncClient, admin: Member
) -> None:
    """With codes of different referrers: the first three are not flagged, all others are."""
    owners = [await join_from(client, next(NETWORKS)) for _ in range(4)]
    codes = [await owner.issue_code() for owner in owners]
    office = next(NETWORKS)
    created = await asyncio.gather(
        *(register_from(client, office, referral_code=code["code"]) for code in codes * 2)
    )
    assert [each.status_code for each in created] == [201] * 8
    risks = [
        each["risk"]["level"]
        for code in codes
        for each in (await admin.request("GET", f"/referrals?code={code['code']}")).json()["items"]
    ]
    assert Counter(risks) == {"low": 3, "medium": 5}


async def test_registrations_at_once_by_one_code_are_counted(
    client: httpx.AsyncClient, admin: Member
) -> None:
    """From different networks: those after the tenth are a burst."""
    owner = await join_from(client, next(NETWORKS))
    code = await owner.issue_code()
    networks = [next(NETWORKS) for _ in range(13)]
    await asyncio.gather(
        *(register_from(client, each, referral_code=code["code"]) for each in networks)
    )
    listed = await admin.request("GET", f"/referrals?limit=100&code={code['code']}")
    found = Counter(
        tuple(signal["code"] for signal in each["risk"]["signals"])
        for each in listed.json()["items"]
    )
    assert found == {(): 10, ("burst",): 3}


@pytest.mark.parametrize("ip", ["2001:db8:0:7::1", "::ffff:203.0.113.77"])
async def test_networks_of_ipv6_are_sites(
    client: httpx.AsyncClient, admin: Member, ip: str
) -> None:
    """Every address of a /64 is one network, and every spelling of an IPv4 address."""
    same = {"2001:db8:0:7::1": "2001:db8:0:7:8::", "::ffff:203.0.113.77": "203.0.113.77"}[ip]
    owner = await join_from(client, ip)
    code = await owner.issue_code()
    bob = await join_from(client, same, referral_code=code["code"])
    assert (await find_referral(admin, bob, code))["risk"]["level"] == "medium"


async def test_requests_of_a_product_have_no_network(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase
) -> None:
    """It creates users, and acts for them, from a network that is not theirs."""
    shop = next(NETWORKS)
    owner = await join_from(client, shop)
    code = await owner.issue_code()
    made = replace(admin, headers=admin.headers | {"X-Forwarded-For": shop})
    body = {"email": new_email(), "referral_code": code["code"]}
    created = await made.request("PUT", f"/users/external/{owner.id}", json=body)
    assert created.status_code == 201, created.text
    bob, cleo = replace(owner, id=created.json()["id"]), await join_from(client, next(NETWORKS))
    acting = await exchange_token(client, database, cleo)
    claim = {"referral_code": code["code"]}
    headers = acting | {"X-Forwarded-For": shop}
    claimed = await client.post(f"{API}/me/referrer", json=claim, headers=headers)
    assert claimed.status_code == 200, claimed.text
    for user, networks in ((bob, 0), (cleo, 1)):
        assert (await find_referral(admin, user, code))["risk"] == {"level": "low", "signals": []}
        assert await count_networks(database, user) == networks


async def test_erasure_leaves_no_network(
    client: httpx.AsyncClient, admin: Member, database: PostgresDatabase, settings: Settings
) -> None:
    """Of a flagged user: neither the address nor a digest; the referral is rejected."""
    home, office = next(NETWORKS), next(NETWORKS)
    owner = await join_from(client, home)
    code = await owner.issue_code()
    bob = await join_from(client, home, referral_code=code["code"])
    headers = {"X-Forwarded-For": office}
    form = {"grant_type": "password", "username": bob.email, "password": PASSWORD}
    await client.post(f"{API}/auth/token", data=form, headers=headers)
    digests = HmacFingerprinter(KeyRing(settings.signing_key_files))
    [at_home], [at_office] = (network_digests(digests, each) for each in (home, office))
    before = await dump_tables(database)
    assert before.count(at_home.hex()) == 2
    assert before.count(at_office.hex()) == 1
    assert home not in before
    erased = await bob.request("DELETE", "/me", json={"password": PASSWORD})
    assert erased.status_code == 204
    after = await dump_tables(database)
    assert after.count(at_home.hex()) == 1, "that of the referrer"
    assert at_office.hex() not in after
    assert bob.email not in after
    referral = await find_referral(admin, bob, code)
    assert (referral["status"], referral["held"], referral["email"]) == ("rejected", False, None)
    await owner.request("DELETE", "/me", json={"password": PASSWORD})
    assert at_home.hex() not in await dump_tables(database)


async def test_failed_login_stores_no_network(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Otherwise a stranger could give a referrer any network."""
    owner = await join_from(client, next(NETWORKS))
    for password, networks in ((f"{PASSWORD} not", 1), (PASSWORD, 2)):
        await log_in(client, owner.email, password)
        assert await count_networks(database, owner) == networks
