"""Users by their own and by external ids, over HTTP."""

import asyncio
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, block_account, join, log_in, new_email, register
from tests.support.clients import ClientCaller, create_client

USERS = f"{API}/users"


@pytest.fixture
async def shop(client: httpx.AsyncClient, database: PostgresDatabase) -> ClientCaller:
    """A product with the scopes for users."""
    return await create_client(client, database, Scope.USERS_READ, Scope.USERS_WRITE)


def new_id() -> str:
    """Return a new external id."""
    return f"shop-{uuid4()}"


async def put(shop: ClientCaller, user: str, **body: Any) -> httpx.Response:
    """Put a user, by default with a new address."""
    path = f"{USERS}/external/{quote(user, safe='')}"
    return await shop.request("PUT", path, json={"email": new_email()} | body)


async def test_new_user_is_created_and_found(shop: ClientCaller) -> None:
    """By the id of the product and by the service's own, which is the location."""
    external_id, email = new_id(), new_email()
    created = await put(shop, external_id, email=email, email_verified=True, locale="ru")
    user = created.json()
    assert created.status_code == 201
    assert created.headers["Location"] == f"{USERS}/{user['id']}"
    assert user == {
        "id": user["id"],
        "email": email,
        "email_verified": True,
        "role": "member",
        "locale": "ru",
        "created_at": user["created_at"],
        "external_id": external_id,
        "blocked": False,
        "referrer": None,
        "referral_count": 0,
    }
    for path in (f"{USERS}/external/{external_id}", f"{USERS}/{user['id']}"):
        assert (await shop.request("GET", path)).json() == user
    again = await put(shop, external_id, email=email)
    assert (again.status_code, again.json()) == (200, user)
    assert "location" not in again.headers


async def test_user_has_referrer_and_block(
    client: httpx.AsyncClient, shop: ClientCaller, database: PostgresDatabase
) -> None:
    """As the operator sees them."""
    eve = await join(client)
    code = await eve.issue_code()
    user = (await put(shop, new_id(), referral_code=code["code"])).json()
    assert user["referrer"] == {"id": eve.id, "email": eve.email}
    await block_account(database, user["email"])
    assert (await shop.request("GET", f"{USERS}/{user['id']}")).json() == user | {"blocked": True}
    assert (await shop.request("GET", f"{USERS}/{eve.id}")).json()["referral_count"] == 1


@pytest.mark.parametrize(
    "external_id",
    ["a/b", "/", "//", "a/", "%2F", "100%", "?a=b", "#a", "a+b", ".", "..", "Ж", "😀" * 255, "a;b",
     "https://id.example/realms/x|7f3", "\\", "null", "true", "a%00b", "é", "e\u0301"],
)  # fmt: skip
async def test_external_id_is_percent_encoded(shop: ClientCaller, external_id: str) -> None:
    """Every visible character is taken as it is, a slash too."""
    unique = f"{external_id[:-9]}{uuid4().hex[:8]}{external_id[-1:]}"
    for each in (external_id, unique):
        encoded = "".join(f"%{byte:02X}" for byte in each.encode())
        path = f"{USERS}/external/{encoded}"
        created = await shop.request("PUT", path, json={"email": new_email()})
        assert created.status_code == 201, created.text
        assert created.json()["external_id"] == each
        assert (await shop.request("GET", path)).json() == created.json()


@pytest.mark.parametrize(
    "encoded",
    ["%00", "%1F", "a%0A", "%20", "a%20b", "%7F", "%E2%80%8B", "%C2%A0", "%FF", "%C0%AF",
     "%ED%A0%80", "%", "%2", "a%zz", "x" * 256, "%F0%9F%98%80" * 256],
)  # fmt: skip
async def test_invalid_external_id_is_rejected(shop: ClientCaller, encoded: str) -> None:
    """422 that names the parameter; nobody is found by it."""
    path = f"{USERS}/external/{encoded}"
    response = await shop.send_raw("PUT", path, json={"email": new_email()})
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == ["external_id"]
    assert (await shop.send_raw("GET", path)).status_code == 404


@pytest.mark.parametrize("path", ["a/b", "a/b/", "", "/", "/a", "//a", "a//b"])
async def test_unencoded_slash_is_no_external_id(shop: ClientCaller, path: str) -> None:
    """It separates segments of the path."""
    url = f"{USERS}/external/{path}"
    response = await shop.send_raw("PUT", url, json={"email": new_email()})
    assert response.status_code in {404, 405}


@pytest.mark.parametrize(
    "path",
    ["/%65xternal/", "/external%2F", "/%2565xternal/", "//external/", "/./%65xternal/"],
)
async def test_path_has_one_spelling(shop: ClientCaller, path: str) -> None:
    """Otherwise `a%2541` would be `aA` in one spelling and `a%41` in the other."""
    unique = uuid4().hex
    response = await shop.send_raw(
        "PUT", f"{USERS}{path}{unique}%2541", json={"email": new_email()}
    )
    assert (response.status_code, response.json()["code"]) == (404, "not-found")
    for encoded in ("A", "%2541"):
        found = await shop.send_raw("GET", f"{USERS}/external/{unique}{encoded}")
        assert found.status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"email": "nobody"}, "/email"),
        ({"email": None}, "/email"),
        ({"email_verified": "true"}, "/email_verified"),
        ({"email_verified": None}, "/email_verified"),
        ({"locale": None}, "/locale"),
        ({"locale": "fr"}, "/locale"),
        ({"password": "correct horse battery"}, "/password"),
        ({"external_id": "7"}, "/external_id"),
        ({"role": "admin"}, "/role"),
        ({"referral_code": "UNKNOWN"}, "/referral_code"),
    ],
)
async def test_invalid_body_is_rejected(
    shop: ClientCaller, body: dict[str, Any], pointer: str
) -> None:
    """And creates nobody."""
    external_id = new_id()
    response = await put(shop, external_id, **body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    found = await shop.request("GET", f"{USERS}/external/{external_id}")
    assert found.status_code == 404


async def test_taken_address_is_a_conflict(shop: ClientCaller) -> None:
    """Of a confirmed account."""
    user = (await put(shop, new_id(), email_verified=True)).json()
    response = await put(shop, new_id(), email=user["email"], email_verified=True)
    assert (response.status_code, response.json()["code"]) == (409, "email-taken")


async def test_concurrent_puts_create_one_user(
    client: httpx.AsyncClient, shop: ClientCaller
) -> None:
    """One of twenty is 201; the code is credited once."""
    code = await (await join(client)).issue_code(max_uses=1)
    body = {"email": new_email(), "referral_code": code["code"]}
    external_id = new_id()
    responses = await asyncio.gather(*(put(shop, external_id, **body) for _ in range(20)))
    assert sorted(each.status_code for each in responses) == [200] * 19 + [201]
    assert len({each.json()["id"] for each in responses}) == 1


async def test_concurrent_changes_of_address_leave_one(shop: ClientCaller) -> None:
    """Ten users cannot have one address."""
    ids, email = [new_id() for _ in range(10)], new_email()
    for external_id in ids:
        await put(shop, external_id)
    responses = await asyncio.gather(
        *(put(shop, each, email=email, email_verified=True) for each in ids)
    )
    assert sorted(each.status_code for each in responses) == [200] + [409] * 9


@pytest.mark.parametrize("vouched", [False, True])
async def test_concurrent_swaps_of_addresses_are_conflicts(
    shop: ClientCaller, *, vouched: bool
) -> None:
    """Neither request waits for the other."""
    users = [(new_id(), new_email()) for _ in range(2)]
    for external_id, email in users:
        await put(shop, external_id, email=email, email_verified=True)
    swapped = list(zip([each[0] for each in users], [each[1] for each in users[::-1]], strict=True))
    responses = await asyncio.gather(
        *(put(shop, each, email=email, email_verified=vouched) for each, email in swapped * 8)
    )
    assert {(each.status_code, each.json()["code"]) for each in responses} == {(409, "email-taken")}


async def test_blocked_user_keeps_the_address(
    client: httpx.AsyncClient, shop: ClientCaller, database: PostgresDatabase
) -> None:
    """`users:write` neither changes nor erases the account."""
    external_id = new_id()
    user = (await put(shop, external_id, email_verified=True)).json()
    await block_account(database, user["email"])
    refused = [
        await put(shop, external_id, email_verified=True),
        await shop.request("DELETE", f"{USERS}/{user['id']}"),
    ]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (403, "account-blocked")
    ] * 2
    assert (await register(client, user["email"])).status_code == 409


async def test_erased_user_is_gone(shop: ClientCaller) -> None:
    """404 by every id; the address and the id are free."""
    external_id = new_id()
    user = (await put(shop, external_id)).json()
    assert (await shop.request("DELETE", f"{USERS}/{user['id']}")).status_code == 204
    for path in (f"{USERS}/{user['id']}", f"{USERS}/external/{external_id}"):
        assert (await shop.request("GET", path)).status_code == 404
    assert (await shop.request("DELETE", f"{USERS}/{user['id']}")).status_code == 404
    assert (await put(shop, external_id, email=user["email"])).status_code == 201
    assert (await shop.request("GET", f"{USERS}/no-uuid")).status_code == 404


async def test_users_are_listed_page_by_page(
    shop: ClientCaller, database: PostgresDatabase
) -> None:
    """Newest first; the cursor belongs to the list and its filters."""
    users = [(await put(shop, new_id(), email_verified=True)).json() for _ in range(3)]
    path, query = USERS, {"verified": "true", "limit": "2"}
    first = (await shop.request("GET", path, params=query)).json()
    query["cursor"] = first["next_cursor"]
    second = (await shop.request("GET", path, params=query)).json()
    assert [*first["items"], *second["items"]][:3] == users[::-1]
    query["verified"] = "false"
    assert (await shop.request("GET", path, params=query)).status_code == 422
    await block_account(database, users[0]["email"])
    blocked = {"blocked": "true", "role": "member", "email": users[0]["email"].upper()}
    found = (await shop.request("GET", path, params=blocked)).json()["items"]
    assert [each["id"] for each in found] == [users[0]["id"]]
    blocked["role"] = "admin"
    assert (await shop.request("GET", path, params=blocked)).json()["items"] == []


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("email", "nobody"), ("email", ""), ("role", "owner"), ("role", "null"), ("blocked", "null"),
     ("blocked", "maybe"), ("verified", "null"), ("verified", ""), ("cursor", "x")],
)  # fmt: skip
async def test_invalid_filter_is_rejected(shop: ClientCaller, parameter: str, value: str) -> None:
    """422 that names the parameter."""
    response = await shop.request("GET", USERS, params={parameter: value})
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == [parameter]


async def test_requests_that_may_send_mail_are_limited(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase
) -> None:
    """A vouched address sends no mail, and is put without a limit."""
    limited = msgspec.structs.replace(settings, limit_token=Rate.parse("3/minute"))
    async with serve(limited) as client:
        shop = await create_client(client, database, Scope.USERS_WRITE)
        vouched = [await put(shop, new_id(), email_verified=True) for _ in range(5)]
        plain = [await put(shop, new_id()) for _ in range(5)]
    assert [each.status_code for each in vouched] == [201] * 5
    assert 429 in {each.status_code for each in plain}
    assert plain[-1].headers["Retry-After"]


async def test_user_without_password_cannot_log_in(
    client: httpx.AsyncClient, shop: ClientCaller
) -> None:
    """The answer is that of a wrong password."""
    user = (await put(shop, new_id(), email_verified=True)).json()
    known, unknown = [await log_in(client, each) for each in (user["email"], new_email())]
    assert known.status_code == unknown.status_code == 400
    assert known.json() == unknown.json()
