"""Who may do what: a line for each route of the OpenAPI document."""

from base64 import b64encode
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import RandomTokenGenerator, SystemClock, SystemIdGenerator
from referral.core.entities.clients import Scope
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.users import Role
from referral.core.use_cases.clients import CreateClient
from referral.settings import Settings
from tests.conftest import ServiceFactory
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
from tests.tools.openapi_document import current_document

Statuses = tuple[int, int, int, int, int, int, int]

CALLERS = (
    "nobody",
    "owner",
    "another user",
    "an admin",
    "a client with the scope",
    "a client without",
    "whose session was revoked",
)


def _all(status: int) -> Statuses:
    return (status,) * 7


def _own(owner: int, other: int | None = None) -> Statuses:
    """One's own affairs: an admin is another user here, and a client is nobody's."""
    other = owner if other is None else other
    return 401, owner, other, other, 403, 403, owner


def _change(owner: int, other: int | None = None) -> Statuses:
    """The same for what takes a session that goes on."""
    return *_own(owner, other)[:-1], 401


EXPECTED_STATUSES: dict[str, Statuses] = {
    "GET /.well-known/jwks.json": _all(200),
    "GET /.well-known/oauth-authorization-server": _all(200),
    "GET /health/live": _all(200),
    "GET /health/ready": _all(200),
    "GET /metrics": _all(200),
    "GET /r/{code}": _all(302),
    "GET /api/v1/codes/lookup": _all(200),
    "GET /api/v1/codes/{code}/validity": _all(200),
    "GET /api/v1/me": _own(200),
    "GET /api/v1/me/codes": _own(200),
    "GET /api/v1/me/codes/active": _own(200, 404),
    "GET /api/v1/me/codes/{code_id}": _own(200, 404),
    "GET /api/v1/me/codes/{code_id}/qr.png": _own(200, 404),
    "GET /api/v1/me/codes/{code_id}/qr.svg": _own(200, 404),
    "GET /api/v1/me/export": _change(200),
    "GET /api/v1/me/referrals": _own(200),
    "GET /api/v1/users/{user_id}/referrals": (401, 200, 200, 200, 200, 403, 200),
    "DELETE /api/v1/me": _change(204),
    "DELETE /api/v1/me/codes/{code_id}": _change(204, 404),
    "PATCH /api/v1/me": _change(200),
    "PATCH /api/v1/me/codes/{code_id}": _change(200, 404),
    "POST /api/v1/auth/email/confirm": _all(422),
    "POST /api/v1/auth/email/disown": _all(422),
    "POST /api/v1/auth/email/verification": _change(202),
    "POST /api/v1/auth/introspect": (401, 401, 401, 401, 200, 200, 401),
    "POST /api/v1/auth/password/forgot": _all(202),
    "POST /api/v1/auth/password/reset": _all(422),
    "POST /api/v1/auth/register": _all(201),
    "POST /api/v1/auth/revoke": _all(200),
    "POST /api/v1/auth/token": _all(200),
    "POST /api/v1/codes/lookup": _all(200),
    "POST /api/v1/me/codes": _change(201),
    "POST /api/v1/me/codes/active/email": _change(202, 404),
    "POST /api/v1/me/codes/{code_id}/activate": _change(200, 404),
    "POST /api/v1/me/codes/{code_id}/deactivate": _change(200, 404),
    "POST /api/v1/me/referrer": _change(422, 200),
    "PUT /api/v1/me/password": _change(204),
}
"""What each of `WHO` gets; the code and the user in the path are the owner's.

An access token outlives its session until it expires, for reading alone: changes and the export
ask the database whether the session goes on.
"""

PRIVATE_LOOKUPS = ("GET /api/v1/codes/lookup", "POST /api/v1/codes/lookup")


def request_for(route: str, owner: Member, code: dict[str, Any]) -> dict[str, Any]:
    """Put a request together that is right in all but perhaps who sends it."""
    method, _, path = route.partition(" ")
    values = {"code": code["code"], "code_id": code["id"], "user_id": owner.id}
    bodies: dict[str, dict[str, Any]] = {
        "GET /api/v1/codes/lookup": {"params": {"email": owner.email}},
        "PATCH /api/v1/me": {"json": {"locale": "ru", "notify_on_referral": False}},
        "PATCH /api/v1/me/codes/{code_id}": {"json": {"max_uses": 5}},
        "POST /api/v1/auth/register": {"json": {"email": new_email(), "password": PASSWORD}},
        "POST /api/v1/auth/token": {
            "data": {
                "grant_type": "password",
                "username": owner.email,
                "password": PASSWORD,
            }
        },
        "DELETE /api/v1/me": {"json": {"password": PASSWORD}},
        "POST /api/v1/auth/email/confirm": {"json": {"token": "unknown", "password": PASSWORD}},
        "POST /api/v1/auth/email/disown": {"json": {"token": "unknown"}},
        "POST /api/v1/auth/introspect": {"data": {"token": "unknown"}},
        "POST /api/v1/auth/password/forgot": {"json": {"email": new_email()}},
        "POST /api/v1/auth/password/reset": {
            "json": {"token": "unknown", "new_password": "staple battery horse"}
        },
        "POST /api/v1/auth/revoke": {"data": {"token": "unknown"}},
        "POST /api/v1/codes/lookup": {"json": {"email": owner.email}},
        "POST /api/v1/me/referrer": {"json": {"referral_code": code["code"]}},
        "PUT /api/v1/me/password": {
            "json": {"current_password": PASSWORD, "new_password": "staple battery horse"}
        },
        "POST /api/v1/me/codes": {"json": {"lifetime_minutes": 60, "activate": False}},
    }
    return {"method": method, "url": path.format_map(values)} | bodies.get(route, {})


async def test_every_route_is_in_the_table() -> None:
    """A route cannot be added without saying who may use it."""
    paths = msgspec.json.decode(await current_document())["paths"]
    found = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert found == set(EXPECTED_STATUSES)


async def headers_of(
    who: str, route: str, owner: Member, database: PostgresDatabase
) -> dict[str, str]:
    """Authorise as one of `WHO`."""
    if who.startswith("a client"):
        wanted = Scope.REFERRALS_READ if who == "a client with the scope" else Scope.USERS_READ
        create = CreateClient(SystemClock(), database, SystemIdGenerator(), RandomTokenGenerator())
        made, secret = await create("shop", [wanted])
        basic = f"Basic {b64encode(f'{made.id}:{secret}'.encode()).decode()}"
        form = {"grant_type": "client_credentials"}
        tokens = await owner.client.post(
            f"{API}/auth/token", data=form, headers={"Authorization": basic}
        )
        bearer = f"Bearer {tokens.json()['access_token']}"
        return {"Authorization": basic if route.endswith("/introspect") else bearer}
    if who in {"another user", "an admin"}:
        stranger = await join(owner.client)
        if who == "an admin":
            await promote(stranger, database)
        return stranger.headers
    if who == "whose session was revoked":
        token = owner.headers["Authorization"].partition(" ")[2]
        await owner.client.post(f"{API}/auth/revoke", data={"token": token})
    return {} if who == "nobody" else owner.headers


BLOCKED_STATUSES: dict[str, int] = {
    "GET /api/v1/me": 200,
    "GET /api/v1/me/codes": 200,
    "GET /api/v1/me/codes/active": 200,
    "GET /api/v1/me/codes/{code_id}": 200,
    "GET /api/v1/me/codes/{code_id}/qr.png": 200,
    "GET /api/v1/me/codes/{code_id}/qr.svg": 200,
    "GET /api/v1/me/export": 200,
    "GET /api/v1/me/referrals": 200,
    "GET /api/v1/users/{user_id}/referrals": 200,
    "DELETE /api/v1/me": 403,
    "DELETE /api/v1/me/codes/{code_id}": 403,
    "PATCH /api/v1/me": 403,
    "PATCH /api/v1/me/codes/{code_id}": 403,
    "POST /api/v1/auth/email/verification": 403,
    "POST /api/v1/me/codes": 403,
    "POST /api/v1/me/codes/active/email": 403,
    "POST /api/v1/me/codes/{code_id}/activate": 403,
    "POST /api/v1/me/codes/{code_id}/deactivate": 403,
    "POST /api/v1/me/referrer": 403,
    "PUT /api/v1/me/password": 403,
}
"""What a blocked user gets on the routes for users, while an access token from before is valid."""


def test_every_route_of_users_says_what_the_blocked_get() -> None:
    """A route cannot be added without saying what happens to them there."""
    users = {route for route, statuses in EXPECTED_STATUSES.items() if statuses[0] == 401}
    assert set(BLOCKED_STATUSES) == users - {"POST /api/v1/auth/introspect"}


@pytest.mark.parametrize("route", BLOCKED_STATUSES)
async def test_what_a_blocked_user_gets(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str
) -> None:
    """Nothing can be changed, erased or mailed."""
    owner = await join(client)
    code = await owner.issue_code()
    await block_account(database, owner.email)
    answer = await client.request(**request_for(route, owner, code), headers=owner.headers)
    assert answer.status_code == BLOCKED_STATUSES[route]
    if answer.status_code == 403:
        assert answer.json()["type"].endswith("/problems/account-blocked")
        assert "www-authenticate" not in answer.headers
        assert (await owner.request("GET", f"/me/codes/{code['id']}")).json() == code


async def test_a_blocked_user_and_the_code_are_out_by_every_public_door(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The code is as if it were not there, the address is taken, and the login is refused."""
    owner = await join(client)
    code = (await owner.issue_code())["code"]
    await block_account(database, owner.email)
    await owner.request("DELETE", "/me", json={"password": PASSWORD})
    found = await client.get(f"{API}/codes/lookup", params={"email": owner.email})
    assert found.json()["type"].endswith("/no-active-code")
    posted = await client.post(f"{API}/codes/lookup", json={"email": owner.email})
    assert posted.json()["type"].endswith("/no-active-code")
    valid = await client.get(f"{API}/codes/{code}/validity")
    assert valid.json() == {"valid": False, "expires_at": None}
    assert "ref=" not in (await client.get(f"/r/{code}")).headers["Location"]
    taken = await register(client, owner.email)
    assert (taken.status_code, taken.json()["type"].rpartition("/")[2]) == (409, "email-taken")
    unusable = await register(client, referral_code=code)
    assert unusable.json()["type"].endswith("/referral-code-unusable")
    late = await join(client)
    claimed = await late.request("POST", "/me/referrer", json={"referral_code": code})
    assert claimed.json()["type"].endswith("/referral-code-unusable")
    assert (await log_in(client, owner.email)).status_code == 400


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_a_code_does_not_tell_whose_it_is(
    settings: Settings, serve: ServiceFactory, visibility: ReferralVisibility
) -> None:
    """Who joins with it learns its owner's address only where everything is open."""
    async with serve(msgspec.structs.replace(settings, referrals_visibility=visibility)) as client:
        owner = await join(client)
        joined = await join(client, referral_code=(await owner.issue_code())["code"])
        me = (await joined.request("GET", "/me")).json()
        exported = (await joined.request("GET", "/me/export")).text
    email = owner.email if visibility is ReferralVisibility.OPEN else None
    assert me["referrer"] == {"id": owner.id, "email": email}
    assert owner.email not in exported


async def promote(member: Member, database: PostgresDatabase) -> None:
    """Make someone an admin."""
    async with database.begin() as records:
        user = await records.users.lock(UUID(member.id))
        assert user is not None
        await records.users.save(replace(user, role=Role.ADMIN))


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("route", EXPECTED_STATUSES)
async def test_who_gets_what(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str, who: str
) -> None:
    """The table holds, and what is someone else's is as if it were not there."""
    owner = await join(client)
    code = await owner.issue_code()
    headers = await headers_of(who, route, owner, database)
    answer = await client.request(**request_for(route, owner, code), headers=headers)
    assert answer.status_code == EXPECTED_STATUSES[route][CALLERS.index(who)], answer.text
    if answer.status_code in {401, 403, 404}:
        assert code["code"] not in answer.text
        assert owner.email not in answer.text


async def test_an_admin_and_a_client_see_referrals_in_full(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase
) -> None:
    """Whatever strangers see; a member who is told so by nobody does not become one."""
    hidden = msgspec.structs.replace(settings, referrals_visibility=ReferralVisibility.OWNER)
    async with serve(hidden) as client:
        owner, admin = await join(client), await join(client)
        joined = await join(client, referral_code=(await owner.issue_code())["code"])
        url = f"{API}/users/{owner.id}/referrals"
        assert (await client.get(url, headers=admin.headers)).status_code == 404
        await promote(admin, database)
        seen = (await client.get(url, headers=admin.headers)).json()["items"]
    assert [item["email"] for item in seen] == [joined.email]


@pytest.mark.parametrize("route", [route for route in EXPECTED_STATUSES if "{code_id}" in route])
async def test_what_a_stranger_tries_changes_nothing(client: httpx.AsyncClient, route: str) -> None:
    """After every refusal the owner's code is as it was."""
    owner, stranger = await join(client), await join(client)
    code = await owner.issue_code()
    refused = await client.request(**request_for(route, owner, code), headers=stranger.headers)
    assert refused.status_code == 404
    assert (await owner.request("GET", f"/me/codes/{code['id']}")).json() == code


@pytest.mark.parametrize("route", [route for route in EXPECTED_STATUSES if "{code_id}" in route])
async def test_a_strangers_code_looks_like_no_code_at_all(
    client: httpx.AsyncClient, route: str
) -> None:
    """Nobody finds out which ids there are."""
    owner, stranger = await join(client), await join(client)
    theirs = await owner.issue_code()
    nothing = theirs | {"id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"}
    answers = [
        (await client.request(**request_for(route, owner, code), headers=stranger.headers)).json()
        for code in (theirs, nothing)
    ]
    for answer in answers:
        del answer["instance"], answer["request_id"]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("route", PRIVATE_LOOKUPS)
async def test_look_ups_can_be_put_behind_a_token(
    settings: Settings, serve: ServiceFactory, route: str
) -> None:
    """REFERRAL_LOOKUP_ACCESS=authenticated turns away who is not signed in."""
    async with serve(msgspec.structs.replace(settings, lookup_access="authenticated")) as client:
        owner, stranger = await join(client), await join(client)
        request = request_for(route, owner, await owner.issue_code())
        found = await client.request(**request, headers=stranger.headers)
        refused = await client.request(**request)
    assert found.status_code == 200
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("visibility", "status", "fields"),
    [
        (ReferralVisibility.REDACTED, 200, {"id", "status", "joined_at"}),
        (ReferralVisibility.OPEN, 200, {"id", "status", "joined_at", "email", "code"}),
        (ReferralVisibility.OWNER, 404, set()),
    ],
)
async def test_a_stranger_sees_of_referrals_what_the_setting_says(
    settings: Settings,
    serve: ServiceFactory,
    visibility: ReferralVisibility,
    status: int,
    fields: set[str],
) -> None:
    """No address by default, everything where it is open, a missing user where it is closed."""
    async with serve(msgspec.structs.replace(settings, referrals_visibility=visibility)) as client:
        owner, stranger = await join(client), await join(client)
        await register(client, referral_code=(await owner.issue_code())["code"])
        url = f"{API}/users/{owner.id}/referrals"
        answer = await client.get(url, headers=stranger.headers)
        own = (await client.get(url, headers=owner.headers)).json()["items"]
        missing = await client.get(url.replace(owner.id, stranger.id[::-1]), headers=owner.headers)
    assert answer.status_code == status
    assert {name for item in answer.json().get("items", []) for name in item} == fields
    assert {"email", "code"} <= own[0].keys()
    assert missing.status_code == 404


async def _make_ended_code(client: httpx.AsyncClient, database: PostgresDatabase, how: str) -> str:
    """Return the address of someone whose code ended in one of many ways."""
    member = await join(client)
    if how == "no code":
        return member.email
    code = await member.issue_code(max_uses=1, lifetime_minutes=1)
    path = f"/me/codes/{code['id']}"
    if how == "deleted":
        await member.request("DELETE", path)
    if how == "deactivated":
        await member.request("POST", f"{path}/deactivate")
    if how == "used up":
        await register(client, referral_code=code["code"])
    if how == "blocked":
        await block_account(database, member.email)
    if how == "erased":
        await member.request("DELETE", "/me", json={"password": PASSWORD})
    return member.email


END_REASONS = (
    "unknown", "no code", "expired", "deleted", "deactivated", "used up", "erased", "blocked",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_look_up_of_nothing_tells_nothing(
    settings: Settings,
    serve: ServiceFactory,
    clock: FakeClock,
    database: PostgresDatabase,
    method: str,
) -> None:
    """An unknown address and one without an active code, why ever, get the same bytes."""
    async with serve(settings) as client:
        emails = [
            new_email() if how == "unknown" else await _make_ended_code(client, database, how)
            for how in END_REASONS
        ]
        clock.advance(minutes=2)
        headers = {"X-Request-ID": "same"}
        answers = [
            await client.request(
                method,
                f"{API}/codes/lookup",
                headers=headers,
                params={"email": email} if method == "GET" else None,
                json={"email": email} if method == "POST" else None,
            )
            for email in emails
        ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert all(answer.headers == answers[0].headers for answer in answers)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_look_up_of_an_unconfirmed_address_tells_nothing(
    settings: Settings, serve: ServiceFactory, method: str
) -> None:
    """Whoever typed somebody else's address is not found by it: the bytes are the same."""
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        owner = await join(client)
        code = (await owner.issue_code())["code"]
        answers = [
            await client.request(
                method,
                f"{API}/codes/lookup",
                headers={"X-Request-ID": "same"},
                params={"email": email} if method == "GET" else None,
                json={"email": email} if method == "POST" else None,
            )
            for email in (owner.email, new_email())
        ]
        assert (await client.get(f"{API}/codes/{code}/validity")).json()["valid"] is True
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers


BAD_BODIES: list[dict[str, Any]] = [
    {"json": {}},
    {"json": {"bad": 6}},
    {"content": b"[1", "headers": {"Content-Type": "application/json"}},
    {"content": b"x", "headers": {"Content-Type": "text/plain"}},
]
ROUTES_WITH_BODY = (
    "POST /api/v1/me/codes", "PATCH /api/v1/me/codes/{code_id}", "PATCH /api/v1/me",
    "DELETE /api/v1/me", "PUT /api/v1/me/password", "POST /api/v1/me/referrer",
)  # fmt: skip


@pytest.mark.parametrize("sent", BAD_BODIES)
@pytest.mark.parametrize("route", ROUTES_WITH_BODY)
async def test_who_asks_comes_before_what_is_asked(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str, sent: dict[str, Any]
) -> None:
    """Whoever may not do a thing hears so, whatever body came with it."""
    owner = await join(client)
    asked = request_for(route, owner, await owner.issue_code())
    for who, status in (("nobody", 401), ("a client without", 403)):
        headers = await headers_of(who, route, owner, database) | sent.get("headers", {})
        bad = sent | {"headers": headers}
        answer = await client.request(asked["method"], asked["url"], **bad)
        assert answer.status_code == status
