"""Authorization: the expected status of every route of the OpenAPI document for every caller."""

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.users import Role
from referral.settings import Settings
from referral.web.permissions import REQUIRED_SCOPES
from tests.conftest import ServiceFactory
from tests.contracts.rows import make_delivery, make_webhook
from tests.support.api_client import (
    API,
    PASSWORD,
    Member,
    block_account,
    create_client,
    join,
    log_in,
    new_email,
    register,
)
from tests.support.fakes.system import FakeClock
from tests.tools.openapi_document import OPENAPI_FILE, current_document

Statuses = tuple[int, int, int, int, int, int, int]

CALLERS = (
    "nobody",
    "owner",
    "another user",
    "an admin",
    "a client with the scope",
    "a client without it",
    "a revoked session",
)


def _all(status: int) -> Statuses:
    return (status,) * 7


def _own(owner: int, other: int | None = None) -> Statuses:
    """Routes for the user's own data: an admin is another user, and a client has no access."""
    other = owner if other is None else other
    return 401, owner, other, other, 403, 403, owner


def _change(owner: int, other: int | None = None) -> Statuses:
    """The same for routes that require an active session."""
    return *_own(owner, other)[:-1], 401


def _management(status: int) -> Statuses:
    """Routes for admins and clients."""
    return 401, 403, 403, status, status, 403, 403


EXPECTED_STATUSES: dict[str, Statuses] = {
    "GET /.well-known/jwks.json": _all(200),
    "GET /.well-known/oauth-authorization-server": _all(200),
    "GET /health/live": _all(200),
    "GET /health/ready": _all(200),
    "GET /metrics": _all(200),
    "GET /r/{code}": _all(302),
    "GET /api/v1/audit": _management(200),
    "GET /api/v1/clients": _management(200),
    "GET /api/v1/codes": _management(200),
    "GET /api/v1/referrals": _management(200),
    "GET /api/v1/referrals.csv": _management(200),
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
    "GET /api/v1/me/statistics": _own(200),
    "GET /api/v1/me/statistics.svg": _own(200),
    "GET /api/v1/referrers": _management(200),
    "GET /api/v1/statistics": _management(200),
    "GET /api/v1/statistics.svg": _management(200),
    "GET /api/v1/events": _management(200),
    "GET /api/v1/users": _management(200),
    "GET /api/v1/users/external/{external_id}": _management(404),
    "GET /api/v1/users/{user_id}": _management(200),
    "GET /api/v1/users/{user_id}/referrals": (401, 200, 200, 200, 200, 403, 200),
    "DELETE /api/v1/clients/{client_id}": _management(404),
    "DELETE /api/v1/me": _change(204),
    "DELETE /api/v1/me/codes/{code_id}": _change(204, 404),
    "DELETE /api/v1/users/{user_id}": _management(204),
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
    "POST /api/v1/clients": _management(201),
    "POST /api/v1/clients/{client_id}/rotate-secret": _management(404),
    "POST /api/v1/codes/lookup": _all(200),
    "POST /api/v1/codes/{code_id}/deactivate": _management(200),
    "POST /api/v1/me/codes": _change(201),
    "POST /api/v1/me/codes/active/email": _change(202, 404),
    "POST /api/v1/me/codes/{code_id}/activate": _change(200, 404),
    "POST /api/v1/me/codes/{code_id}/deactivate": _change(200, 404),
    "POST /api/v1/me/referrer": _change(422, 200),
    "POST /api/v1/referrals/{referral_id}/confirm": _management(404),
    "POST /api/v1/referrals/{referral_id}/reject": _management(404),
    "POST /api/v1/users/{user_id}/block": _management(200),
    "POST /api/v1/users/{user_id}/unblock": _management(200),
    "PUT /api/v1/me/password": _change(204),
    "PUT /api/v1/users/external/{external_id}": _management(201),
    "PUT /api/v1/users/{user_id}/referrer": _management(422),
    "DELETE /api/v1/webhooks/{webhook_id}": _management(204),
    "GET /api/v1/webhooks": _management(200),
    "GET /api/v1/webhooks/{webhook_id}": _management(200),
    "GET /api/v1/webhooks/{webhook_id}/deliveries": _management(200),
    "PATCH /api/v1/webhooks/{webhook_id}": _management(200),
    "POST /api/v1/webhooks": _management(201),
    "POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry": _management(202),
    "POST /api/v1/webhooks/{webhook_id}/replay": _management(202),
    "POST /api/v1/webhooks/{webhook_id}/rotate-secret": _management(200),
    "POST /api/v1/webhooks/{webhook_id}/test": _management(202),
}
"""The status for each of `CALLERS`; the code and the user in the path are the owner's.

An access token of a revoked session can read until it expires; changes and the export check the
session in the database.
"""

CLIENT_SCOPES = {
    f"{method.upper()} {path}": REQUIRED_SCOPES[operation["operationId"]]
    for path, item in json.loads(OPENAPI_FILE.read_bytes())["paths"].items()
    for method, operation in item.items()
    if operation["operationId"] in REQUIRED_SCOPES
}
"""The scope that opens a route for admins and clients."""

OWN_CODE_ROUTES = [
    route for route in EXPECTED_STATUSES if "{code_id}" in route and route not in CLIENT_SCOPES
]

PRIVATE_LOOKUPS = ("GET /api/v1/codes/lookup", "POST /api/v1/codes/lookup")


STATISTICS = ("statistics", "statistics.svg", "me/statistics", "me/statistics.svg")
STATISTICS_RANGE = {"from": "2026-01-01", "to": "2026-02-01", "interval": "week"}

WEBHOOK = make_webhook()
DELIVERY = make_delivery(WEBHOOK)


async def store_webhook(database: PostgresDatabase) -> None:
    """Store the webhook and the delivery of the paths, as they were before other tests."""
    async with database.begin() as repositories:
        await repositories.deliveries.delete(WEBHOOK.id)
        await repositories.webhooks.remove(WEBHOOK.id)
        await repositories.webhooks.add(WEBHOOK)
        await repositories.deliveries.add([DELIVERY])


def request_for(route: str, owner: Member, code: dict[str, Any]) -> dict[str, Any]:
    """Return a valid request for a route."""
    method, _, path = route.partition(" ")
    values = {
        "code": code["code"],
        "code_id": code["id"],
        "user_id": owner.id,
        "external_id": uuid4().hex,
        "client_id": uuid4(),
        "referral_id": uuid4(),
        "webhook_id": WEBHOOK.id,
        "delivery_id": DELIVERY.id,
    }
    reason = {"json": {"reason": "Spam."}}
    bodies: dict[str, dict[str, Any]] = {
        "POST /api/v1/clients": {"json": {"name": uuid4().hex, "scopes": ["codes:read"]}},
        "POST /api/v1/codes/{code_id}/deactivate": reason,
        "POST /api/v1/referrals/{referral_id}/confirm": reason,
        "POST /api/v1/referrals/{referral_id}/reject": reason,
        "POST /api/v1/users/{user_id}/block": reason,
        "POST /api/v1/users/{user_id}/unblock": reason,
        "PUT /api/v1/users/{user_id}/referrer": {
            "json": {"reason": "Spam.", "referrer_id": str(uuid4())}
        },
        **{f"GET /api/v1/{name}": {"params": STATISTICS_RANGE} for name in STATISTICS},
        "GET /api/v1/codes/lookup": {"params": {"email": owner.email}},
        "PATCH /api/v1/me": {"json": {"locale": "ru", "notify_on_referral": False}},
        "PATCH /api/v1/me/codes/{code_id}": {"json": {"max_uses": 5}},
        "PATCH /api/v1/webhooks/{webhook_id}": {"json": {"description": "Shop"}},
        "POST /api/v1/webhooks": {"json": {"url": "https://shop.example/", "events": ["*"]}},
        "POST /api/v1/webhooks/{webhook_id}/replay": {"json": {"since": "2026-01-01T00:00:00Z"}},
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
        "PUT /api/v1/users/external/{external_id}": {"json": {"email": new_email()}},
        "POST /api/v1/me/codes": {"json": {"lifetime_minutes": 60, "activate": False}},
    }
    return {"method": method, "url": path.format_map(values)} | bodies.get(route, {})


async def test_every_route_is_in_the_table() -> None:
    """A new route must state who may use it."""
    paths = msgspec.json.decode(await current_document())["paths"]
    found = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert found == set(EXPECTED_STATUSES)


async def headers_for(
    caller: str, route: str, owner: Member, database: PostgresDatabase
) -> dict[str, str]:
    """Return the authorization headers of one of `CALLERS`."""
    if caller.startswith("a client"):
        scope = CLIENT_SCOPES.get(route, Scope.REFERRALS_READ)
        if caller == "a client without it":
            scope = Scope.CODES_READ
        created, secret = await create_client(database, f"shop {uuid4()}", [scope])
        basic = f"Basic {b64encode(f'{created.id}:{secret}'.encode()).decode()}"
        form = {"grant_type": "client_credentials"}
        tokens = await owner.client.post(
            f"{API}/auth/token", data=form, headers={"Authorization": basic}
        )
        bearer = f"Bearer {tokens.json()['access_token']}"
        return {"Authorization": basic if route.endswith("/introspect") else bearer}
    if caller in {"another user", "an admin"}:
        stranger = await join(owner.client)
        if caller == "an admin":
            await promote(stranger, database)
        return stranger.headers
    if caller == "a revoked session":
        token = owner.headers["Authorization"].partition(" ")[2]
        await owner.client.post(f"{API}/auth/revoke", data={"token": token})
    return {} if caller == "nobody" else owner.headers


BLOCKED_STATUSES: dict[str, int] = {
    "GET /api/v1/me": 200,
    "GET /api/v1/me/codes": 200,
    "GET /api/v1/me/codes/active": 200,
    "GET /api/v1/me/codes/{code_id}": 200,
    "GET /api/v1/me/codes/{code_id}/qr.png": 200,
    "GET /api/v1/me/codes/{code_id}/qr.svg": 200,
    "GET /api/v1/me/export": 200,
    "GET /api/v1/me/referrals": 200,
    "GET /api/v1/me/statistics": 200,
    "GET /api/v1/me/statistics.svg": 200,
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
"""The status for a blocked user whose access token is still valid."""


def test_every_user_route_states_the_status_of_blocked_users() -> None:
    """A new route must state what a blocked user gets."""
    users = {route for route, statuses in EXPECTED_STATUSES.items() if statuses[0] == 401}
    assert set(BLOCKED_STATUSES) == users - CLIENT_SCOPES.keys() - {"POST /api/v1/auth/introspect"}


@pytest.mark.parametrize("route", BLOCKED_STATUSES)
async def test_blocked_user_can_only_read(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str
) -> None:
    """A blocked user cannot change or delete anything, or request an e-mail."""
    owner = await join(client)
    code = await owner.issue_code()
    await block_account(database, owner.email)
    response = await client.request(**request_for(route, owner, code), headers=owner.headers)
    assert response.status_code == BLOCKED_STATUSES[route]
    if response.status_code == 403:
        assert response.json()["type"].endswith("/problems/account-blocked")
        assert "www-authenticate" not in response.headers
        assert (await owner.request("GET", f"/me/codes/{code['id']}")).json() == code


async def test_blocked_user_and_code_are_hidden_in_public(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The code is not found, the e-mail is taken, and the login is rejected."""
    owner = await join(client)
    code = (await owner.issue_code())["code"]
    await block_account(database, owner.email)
    await owner.request("DELETE", "/me", json={"password": PASSWORD})
    found = await client.get(f"{API}/codes/lookup", params={"email": owner.email})
    assert found.json()["type"].endswith("/no-active-code")
    posted = await client.post(f"{API}/codes/lookup", json={"email": owner.email})
    assert posted.json()["type"].endswith("/no-active-code")
    validity = await client.get(f"{API}/codes/{code}/validity")
    assert validity.json() == {"valid": False, "expires_at": None}
    assert "ref=" not in (await client.get(f"/r/{code}")).headers["Location"]
    taken = await register(client, owner.email)
    assert (taken.status_code, taken.json()["type"].rpartition("/")[2]) == (409, "email-taken")
    unusable = await register(client, referral_code=code)
    assert unusable.json()["type"].endswith("/referral-code-unusable")
    other = await join(client)
    referred = await other.request("POST", "/me/referrer", json={"referral_code": code})
    assert referred.json()["type"].endswith("/referral-code-unusable")
    assert (await log_in(client, owner.email)).status_code == 400


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_code_does_not_reveal_its_owner(
    settings: Settings, serve: ServiceFactory, visibility: ReferralVisibility
) -> None:
    """A user who registers with a code sees the owner's e-mail only if visibility is open."""
    async with serve(msgspec.structs.replace(settings, referrals_visibility=visibility)) as client:
        owner = await join(client)
        joined = await join(client, referral_code=(await owner.issue_code())["code"])
        me = (await joined.request("GET", "/me")).json()
        exported = (await joined.request("GET", "/me/export")).text
    email = owner.email if visibility is ReferralVisibility.OPEN else None
    assert me["referrer"] == {"id": owner.id, "email": email}
    assert owner.email not in exported


async def promote(member: Member, database: PostgresDatabase) -> None:
    """Make a member an admin."""
    async with database.begin() as repositories:
        user = await repositories.users.lock(UUID(member.id))
        assert user is not None
        await repositories.users.save(replace(user, role=Role.ADMIN))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", EXPECTED_STATUSES)
async def test_each_caller_gets_the_expected_status(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str, caller: str
) -> None:
    """The table holds, and errors do not reveal the owner's data."""
    owner = await join(client)
    code = await owner.issue_code()
    headers = await headers_for(caller, route, owner, database)
    await store_webhook(database)
    response = await client.request(**request_for(route, owner, code), headers=headers)
    assert response.status_code == EXPECTED_STATUSES[route][CALLERS.index(caller)], response.text
    if response.status_code in {401, 403, 404}:
        assert code["code"] not in response.text
        assert owner.email not in response.text


async def test_admin_sees_all_referrals(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase
) -> None:
    """An admin sees everything, whatever the visibility; a member does not become an admin."""
    hidden = msgspec.structs.replace(settings, referrals_visibility=ReferralVisibility.OWNER)
    async with serve(hidden) as client:
        owner, admin = await join(client), await join(client)
        joined = await join(client, referral_code=(await owner.issue_code())["code"])
        url = f"{API}/users/{owner.id}/referrals"
        assert (await client.get(url, headers=admin.headers)).status_code == 404
        await promote(admin, database)
        items = (await client.get(url, headers=admin.headers)).json()["items"]
    assert [item["email"] for item in items] == [joined.email]


@pytest.mark.parametrize("route", OWN_CODE_ROUTES)
async def test_other_user_cannot_change_a_code(client: httpx.AsyncClient, route: str) -> None:
    """The response is 404, and the owner's code is unchanged."""
    owner, stranger = await join(client), await join(client)
    code = await owner.issue_code()
    response = await client.request(**request_for(route, owner, code), headers=stranger.headers)
    assert response.status_code == 404
    assert (await owner.request("GET", f"/me/codes/{code['id']}")).json() == code


@pytest.mark.parametrize("route", OWN_CODE_ROUTES)
async def test_code_of_another_user_looks_like_an_unknown_code(
    client: httpx.AsyncClient, route: str
) -> None:
    """The responses are equal, so ids cannot be found by trial."""
    owner, stranger = await join(client), await join(client)
    theirs = await owner.issue_code()
    nothing = theirs | {"id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"}
    responses = [
        (await client.request(**request_for(route, owner, code), headers=stranger.headers)).json()
        for code in (theirs, nothing)
    ]
    for response in responses:
        del response["instance"], response["request_id"]
    assert responses[0] == responses[1]


@pytest.mark.parametrize("route", PRIVATE_LOOKUPS)
async def test_lookups_can_require_a_token(
    settings: Settings, serve: ServiceFactory, route: str
) -> None:
    """REFERRAL_LOOKUP_ACCESS=authenticated rejects anonymous callers."""
    async with serve(msgspec.structs.replace(settings, lookup_access="authenticated")) as client:
        owner, stranger = await join(client), await join(client)
        request = request_for(route, owner, await owner.issue_code())
        found = await client.request(**request, headers=stranger.headers)
        anonymous = await client.request(**request)
    assert found.status_code == 200
    assert anonymous.status_code == 401
    assert anonymous.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("visibility", "status", "fields"),
    [
        (ReferralVisibility.REDACTED, 200, {"id", "status", "joined_at"}),
        (ReferralVisibility.OPEN, 200, {"id", "status", "joined_at", "email", "code"}),
        (ReferralVisibility.OWNER, 404, set()),
    ],
)
async def test_visibility_setting_limits_referrals(
    settings: Settings,
    serve: ServiceFactory,
    visibility: ReferralVisibility,
    status: int,
    fields: set[str],
) -> None:
    """Other users see no e-mail by default, everything if open, and 404 if private."""
    async with serve(msgspec.structs.replace(settings, referrals_visibility=visibility)) as client:
        owner, stranger = await join(client), await join(client)
        await register(client, referral_code=(await owner.issue_code())["code"])
        url = f"{API}/users/{owner.id}/referrals"
        response = await client.get(url, headers=stranger.headers)
        own = (await client.get(url, headers=owner.headers)).json()["items"]
        missing = await client.get(url.replace(owner.id, stranger.id[::-1]), headers=owner.headers)
    assert response.status_code == status
    assert {name for item in response.json().get("items", []) for name in item} == fields
    assert {"email", "code"} <= own[0].keys()
    assert missing.status_code == 404


async def _make_ended_code(
    client: httpx.AsyncClient, database: PostgresDatabase, reason: str
) -> str:
    """Make a user whose code ended for this reason; return the e-mail."""
    member = await join(client)
    if reason == "no code":
        return member.email
    code = await member.issue_code(max_uses=1, lifetime_minutes=1)
    path = f"/me/codes/{code['id']}"
    if reason == "deleted":
        await member.request("DELETE", path)
    if reason == "deactivated":
        await member.request("POST", f"{path}/deactivate")
    if reason == "used up":
        await register(client, referral_code=code["code"])
    if reason == "blocked":
        await block_account(database, member.email)
    if reason == "erased":
        await member.request("DELETE", "/me", json={"password": PASSWORD})
    return member.email


END_REASONS = (
    "unknown", "no code", "expired", "deleted", "deactivated", "used up", "erased", "blocked",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_lookup_does_not_reveal_why_there_is_no_code(
    settings: Settings,
    serve: ServiceFactory,
    clock: FakeClock,
    database: PostgresDatabase,
    method: str,
) -> None:
    """For every reason status, headers and body are the same."""
    async with serve(settings) as client:
        emails = [
            new_email() if reason == "unknown" else await _make_ended_code(client, database, reason)
            for reason in END_REASONS
        ]
        clock.advance(minutes=2)
        headers = {"X-Request-ID": "same"}
        responses = [
            await client.request(
                method,
                f"{API}/codes/lookup",
                headers=headers,
                params={"email": email} if method == "GET" else None,
                json={"email": email} if method == "POST" else None,
            )
            for email in emails
        ]
    assert {response.status_code for response in responses} == {404}
    assert len({response.content for response in responses}) == 1
    assert all(response.headers == responses[0].headers for response in responses)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_lookup_hides_unconfirmed_emails(
    settings: Settings, serve: ServiceFactory, method: str
) -> None:
    """An unconfirmed e-mail gets the response of an unknown one."""
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        owner = await join(client)
        code = (await owner.issue_code())["code"]
        responses = [
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
    assert [response.status_code for response in responses] == [404, 404]
    assert responses[0].content == responses[1].content
    assert responses[0].headers == responses[1].headers


BAD_BODIES: list[dict[str, Any]] = [
    {"json": {}},
    {"json": {"bad": 6}},
    {"content": b"[1", "headers": {"Content-Type": "application/json"}},
    {"content": b"x", "headers": {"Content-Type": "text/plain"}},
]
ROUTES_WITH_BODY = (
    "POST /api/v1/me/codes", "PATCH /api/v1/me/codes/{code_id}", "PATCH /api/v1/me",
    "DELETE /api/v1/me", "PUT /api/v1/me/password", "POST /api/v1/me/referrer",
    "POST /api/v1/webhooks", "PATCH /api/v1/webhooks/{webhook_id}",
    "POST /api/v1/webhooks/{webhook_id}/replay",
)  # fmt: skip


@pytest.mark.parametrize("sent", BAD_BODIES)
@pytest.mark.parametrize("route", ROUTES_WITH_BODY)
async def test_authorization_precedes_validation(
    client: httpx.AsyncClient, database: PostgresDatabase, route: str, sent: dict[str, Any]
) -> None:
    """A caller without access gets 401 or 403, whatever the body."""
    owner = await join(client)
    valid = request_for(route, owner, await owner.issue_code())
    for caller, status in (("nobody", 401), ("a client without it", 403)):
        headers = await headers_for(caller, route, owner, database) | sent.get("headers", {})
        invalid = sent | {"headers": headers}
        response = await client.request(valid["method"], valid["url"], **invalid)
        assert response.status_code == status
