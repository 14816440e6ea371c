"""Changes by several admins, and by admins and users, at the same time.

Races about decisions on referrals and about one block are in `test_administration`.
"""

import asyncio
from collections import Counter
from uuid import uuid4

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from tests.integration.test_administration import REASON, events_about, records
from tests.support.api_client import Member, join
from tests.web.test_authorization import promote

ROUNDS = range(4)


@pytest.fixture
async def admins(client: httpx.AsyncClient, database: PostgresDatabase) -> list[Member]:
    """Three admins."""
    admins = [await join(client) for _ in range(3)]
    for admin in admins:
        await promote(admin, database)
    return admins


async def test_referrer_is_set_once(
    client: httpx.AsyncClient, admins: list[Member], database: PostgresDatabase
) -> None:
    """By one of the admins, with a record, or by the user, without one."""
    owner = await join(client)
    code = await owner.issue_code()
    for _ in ROUNDS:
        bob = await join(client)
        responses = await asyncio.gather(
            bob.request("POST", "/me/referrer", json={"referral_code": code["code"]}),
            *(
                admin.request(
                    "PUT", f"/users/{bob.id}/referrer", json={"referrer_id": admin.id} | REASON
                )
                for admin in admins
            ),
        )
        assert Counter(each.status_code for each in responses) == {200: 1, 409: 3}
        winner = next(n for n, each in enumerate(responses) if each.status_code == 200)
        expected = [owner, *admins][winner].id
        shown = (await admins[0].request("GET", f"/users/{bob.id}")).json()
        assert shown["referrer"]["id"] == expected
        listed = [
            (each["actor"], each["action"]) for each in await records(admins[0], subject=bob.id)
        ]
        set_by = [(expected, "user.referrer-set")] if winner else []
        assert [each for each in listed if each[1] == "user.referrer-set"] == set_by
        assert (await events_about(database, bob.id)).count("referral.created") == 1


async def test_code_is_deactivated_once(
    client: httpx.AsyncClient, admins: list[Member], database: PostgresDatabase
) -> None:
    """All admins get the inactive code; one record and one event are stored."""
    owner = await join(client)
    for _ in ROUNDS:
        code = await owner.issue_code()
        path = f"/codes/{code['id']}/deactivate"
        responses = await asyncio.gather(
            *(admin.request("POST", path, json=REASON) for admin in admins),
            owner.request("GET", f"/me/codes/{code['id']}"),
        )
        assert {each.status_code for each in responses} == {200}
        assert {each.json()["status"] for each in responses[:-1]} == {"inactive"}
        [record] = await records(admins[0], subject=code["id"])
        assert record["action"] == "code.deactivated"
        assert (await events_about(database, code["id"])).count("code.deactivated") == 1


async def test_blocks_and_unblocks_alternate(
    client: httpx.AsyncClient, admins: list[Member], database: PostgresDatabase
) -> None:
    """Records and events agree with each other and with what is stored at the end."""
    for _ in ROUNDS:
        owner = await join(client)
        responses = await asyncio.gather(
            *(
                admin.request("POST", f"/users/{owner.id}/{change}", json=REASON)
                for admin in admins
                for change in ("block", "unblock")
            )
        )
        assert {each.status_code for each in responses} == {200}
        is_blocked = (await admins[0].request("GET", f"/users/{owner.id}")).json()["blocked"]
        actions = Counter(
            each["action"]
            for each in await records(admins[0], subject=owner.id)
            if each["action"] in {"user.blocked", "user.unblocked"}
        )
        assert actions["user.blocked"] - actions["user.unblocked"] == is_blocked
        told = Counter(await events_about(database, owner.id))
        assert all(told[action] == actions[action] for action in ("user.blocked", "user.unblocked"))


async def test_client_is_created_once(admins: list[Member]) -> None:
    """Its name is taken for the other admins; one record is stored."""
    for _ in ROUNDS:
        body = {"name": f"shop {uuid4()}", "scopes": ["codes:read"]}
        responses = await asyncio.gather(
            *(admin.request("POST", "/clients", json=body) for admin in admins)
        )
        assert sorted(each.status_code for each in responses) == [201, 409, 409]
        created = next(each.json() for each in responses if each.status_code == 201)
        [record] = await records(admins[0], subject=created["id"])
        assert record["action"] == "client.created"
