"""Token exchange over HTTP, with an issuer on a real socket (RFC 8693, RFC 7519, RFC 8725)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from dishka import Provider
from dishka import Scope as DishkaScope

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.entities.clients import Scope
from referral.core.entities.subject_tokens import (
    ACCESS_TOKEN_TYPE,
    TOKEN_EXCHANGE_GRANT,
    SubjectTokenType,
)
from referral.core.ports.system import Clock
from referral.settings import Settings
from tests.conftest import ServiceFactory, run_service
from tests.support.api_client import (
    API,
    PASSWORD,
    UNLIMITED_SETTINGS,
    block_account,
    join,
)
from tests.support.clients import create_client
from tests.support.fakes.security import FakeFingerprinter
from tests.support.fakes.system import FakeClock
from tests.support.issuer_stub import (
    AUDIENCE,
    issuer_stub,
)
from tests.web.forged_subject_tokens import (
    EC_KEY,
    ED_KEY,
    FORGERIES,
    KEY,
    Exchanger,
    Forge,
    in_seconds,
)
from tests.web.test_authorization import CLIENT_SCOPES, promote, request_for

JWT, ID_TOKEN, ACCESS_TOKEN, USER_ID, EXTERNAL_ID = SubjectTokenType


@pytest.fixture(scope="module")
async def product(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Exchanger]:
    """A product whose users have accounts with an issuer."""
    clock = FakeClock()
    fakes = Provider(scope=DishkaScope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)
    engine = make_engine(database_url)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    async with issuer_stub(KEY, EC_KEY, ED_KEY) as issuer:
        settings = Settings(
            **UNLIMITED_SETTINGS,
            data_dir=tmp_path_factory.mktemp("data"),
            database_url=database_url,
            signing_key_file=str(key_file),
            trusted_issuers=(issuer.url,),
            trusted_audience=AUDIENCE,
            email_verification="on",
            worker="off",
        )
        async with run_service(settings, fakes) as client:
            shop = await create_client(client, database, Scope.USERS_ACT, Scope.USERS_READ)
            yield Exchanger(client, shop, issuer, clock)
    await engine.dispose()


def is_refused(response: httpx.Response) -> bool:
    """Return whether the subject token is refused in the form of RFC 6749."""
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    return (response.status_code, body.keys(), body["error"]) == (
        *(400, {"error", "error_description"}, "invalid_request"),
    )


async def test_user_of_an_issuer_calls_me(product: Exchanger) -> None:
    """The account is made at first sight; the second token leads to the same account."""
    claims = product.claims()
    first = await product.exchange(KEY.sign(claims))
    assert first.json() == {
        "access_token": first.json()["access_token"],
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "account",
        "issued_token_type": ACCESS_TOKEN_TYPE,
    }
    headers = {"Authorization": f"Bearer {first.json()['access_token']}"}
    me = (await product.client.get(f"{API}/me", headers=headers)).json()
    assert (me["email"], me["email_verified"]) == (claims["email"], True)
    path = f"{API}/users/{me['id']}"
    found = (await product.shop.request("GET", path)).json()
    assert found["external_id"] == f"{product.issuer.url}|{claims['sub']}"
    again = await product.log_in(sub=claims["sub"], email=None, email_verified=None)
    assert (await product.client.get(f"{API}/me", headers=again)).json()["id"] == me["id"]
    code = await product.client.post(f"{API}/me/codes", json={"lifetime_minutes": 5}, headers=again)
    assert code.status_code == 201


async def test_introspection_shows_who_acts(product: Exchanger, database: PostgresDatabase) -> None:
    """Until the user is blocked; reads go on until the token expires, changes end at once."""
    claims = product.claims()
    headers = await product.log_in(**claims)
    form = {"token": headers["Authorization"].partition(" ")[2]}

    async def introspect() -> dict[str, Any]:
        response = await product.client.post(
            f"{API}/auth/introspect", data=form, auth=product.shop.credentials
        )
        state: dict[str, Any] = response.json()
        return state

    state = await introspect()
    assert (state["active"], state["act"]) == (True, {"sub": product.shop.id})
    assert (state["client_id"], state["username"]) == (product.shop.id, claims["email"])
    await block_account(database, claims["email"])
    assert await introspect() == {"active": False}
    changed = await product.client.patch(f"{API}/me", json={"locale": "ru"}, headers=headers)
    assert changed.json()["code"] == "account-blocked"
    assert is_refused(await product.exchange(KEY.sign(claims)))


async def test_acting_client_is_not_the_user(product: Exchanger) -> None:
    """It neither changes the password nor deletes the account."""
    headers = await product.log_in()
    passwords = {"current_password": PASSWORD, "new_password": "staple battery horse"}
    for method, path, body in (
        ("PUT", "/me/password", passwords),
        ("DELETE", "/me", {"password": PASSWORD}),
        ("PUT", "/me/password", {}),
    ):
        response = await product.client.request(method, f"{API}{path}", json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "insufficient-scope")


async def test_acting_client_ends_with_the_user_and_itself(
    product: Exchanger, database: PostgresDatabase
) -> None:
    """It exports nothing about a blocked user, and changes nothing after it was deleted."""
    user = await join(product.client)
    other = await create_client(product.client, database, Scope.USERS_ACT)
    shop, product.shop = product.shop, other
    try:
        tokens = await product.exchange(user.id, USER_ID)
    finally:
        product.shop = shop
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}

    async def send(method: str, path: str, **sent: Any) -> tuple[int, str | None]:
        response = await product.client.request(method, f"{API}{path}", headers=headers, **sent)
        return response.status_code, response.json().get("code")

    assert (await send("GET", "/me/export"))[0] == 200
    await block_account(database, user.email)
    assert await send("GET", "/me/export") == (403, "account-blocked")
    await block_account(database, user.email, undo=True)
    async with database.begin() as repositories:
        await repositories.clients.remove(UUID(other.id))
    for request in (("GET", "/me/export"), ("PATCH", "/me"), ("POST", "/me/codes")):
        assert await send(*request) == (401, "unauthenticated")


@pytest.mark.parametrize("route", CLIENT_SCOPES)
async def test_acting_client_is_no_admin(
    product: Exchanger, database: PostgresDatabase, route: str
) -> None:
    """Whoever it acts for: the routes of *Who may* stay closed."""
    admin = await join(product.client)
    await promote(admin, database)
    tokens = await product.exchange(admin.id, USER_ID)
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    request = request_for(route, admin, {"code": "X", "id": str(uuid4())})
    response = await product.client.request(**request, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient-scope")


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_bad_subject_token_is_refused(product: Exchanger, forge: Forge) -> None:
    """Every defect is an invalid request, as any type of JWT."""
    token = forge(product)
    for token_type in (JWT, ID_TOKEN, ACCESS_TOKEN):
        response = await product.exchange(token, token_type)
        assert is_refused(response), response.text
    for key in (KEY, EC_KEY, ED_KEY):
        assert (await product.exchange(key.sign(product.claims()))).status_code == 200


@pytest.mark.parametrize(
    ("token_type", "header", "payload", "accepted"),
    [
        (JWT, "JWT", None, True), (JWT, "at+jwt", None, True), (JWT, None, "Bearer", True),
        (JWT, "jwt", "ID", True), (JWT, "application/at+jwt", None, True),
        (ID_TOKEN, "JWT", None, True), (ID_TOKEN, None, "ID", True),
        (ID_TOKEN, "at+jwt", None, False), (ID_TOKEN, "AT+JWT", None, False),
        (ID_TOKEN, "application/at+jwt", None, False), (ID_TOKEN, "JWT", "Bearer", False),
        (ACCESS_TOKEN, "at+jwt", None, True), (ACCESS_TOKEN, "JWT", "Bearer", True),
        (ACCESS_TOKEN, "JWT", "ID", False),
    ],
)  # fmt: skip
async def test_types_are_not_confused(
    product: Exchanger, token_type: str, header: str | None, payload: str | None, *, accepted: bool
) -> None:
    """A token is taken only as what its types say that it is."""
    token = KEY.sign(product.claims(typ=payload), typ=header)
    response = await product.exchange(token, token_type)
    assert (response.status_code == 200) is accepted
    assert accepted or is_refused(response)


async def test_own_tokens_are_no_subject_tokens(product: Exchanger) -> None:
    """Neither a user's, nor a client's, nor an exchanged one."""
    member = await join(product.client)
    for headers in (member.headers, product.shop.headers, await product.log_in()):
        token = headers["Authorization"].partition(" ")[2]
        for token_type in SubjectTokenType:
            assert is_refused(await product.exchange(token, token_type))


async def test_subject_token_is_no_access_token(product: Exchanger) -> None:
    """The issuer's tokens open nothing by themselves."""
    token = KEY.sign(product.claims(client_id="shop", scope="account", jti="1"), typ="at+jwt")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await product.client.get(f"{API}/me", headers=headers)).status_code == 401


async def test_valid_variants_are_accepted(product: Exchanger) -> None:
    """Several audiences, fractions of seconds, a little clock skew, and no `iat`."""
    for changed in (
        {"aud": ["till", AUDIENCE]},
        {"iat": None},
        {"exp": in_seconds(product, 60) + 0.5, "iat": in_seconds(product, 0) + 0.25},
        {"iat": in_seconds(product, 4), "nbf": in_seconds(product, 4)},
        {"email": f"Ann+{uuid4().hex}@example.com"},
    ):
        await product.log_in(**changed)


async def test_subject_token_may_be_replayed(product: Exchanger) -> None:
    """Within its life: the product asks again when the access token expires."""
    token = KEY.sign(product.claims())
    assert [(await product.exchange(token)).status_code for _ in range(2)] == [200, 200]


async def test_concurrent_exchanges_create_one_user(product: Exchanger) -> None:
    """Twenty requests for a new user get twenty tokens for one account."""
    token = KEY.sign(product.claims())
    responses = await asyncio.gather(*(product.exchange(token) for _ in range(20)))
    assert {each.status_code for each in responses} == {200}
    ids = set()
    for each in responses:
        headers = {"Authorization": f"Bearer {each.json()['access_token']}"}
        ids.add((await product.client.get(f"{API}/me", headers=headers)).json()["id"])
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": "jwt"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
         "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
         "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": "shop"}, "invalid_target"),
        ({"resource": "https://shop.example"}, "invalid_target"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "users:read"}, "invalid_scope"),
    ],
)  # fmt: skip
async def test_invalid_parameters_are_refused(
    product: Exchanger, form: dict[str, str], error: str
) -> None:
    """In the form of RFC 6749."""
    response = await product.exchange(KEY.sign(product.claims()), **form)
    assert (response.status_code, response.json()["error"]) == (400, error)


async def test_client_needs_secret_and_scope(
    product: Exchanger, database: PostgresDatabase
) -> None:
    """401 without authentication, `unauthorized_client` without `users:act`."""
    token = KEY.sign(product.claims())
    other = await create_client(product.client, database, Scope.USERS_WRITE, Scope.USERS_READ)
    product = Exchanger(product.client, other, product.issuer, product.clock)
    response = await product.exchange(token)
    assert (response.status_code, response.json()["error"]) == (400, "unauthorized_client")
    form = {
        "grant_type": TOKEN_EXCHANGE_GRANT, "subject_token": token, "subject_token_type": JWT,
    }  # fmt: skip
    for headers in ({}, {"Authorization": "Basic YTpi"}):
        response = await product.client.post(f"{API}/auth/token", data=form, headers=headers)
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


async def test_without_issuers_no_jwt_is_accepted(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase, clock: FakeClock
) -> None:
    """The service's own types work all the same."""
    async with issuer_stub(KEY) as issuer, serve(settings) as client:
        shop = await create_client(client, database, Scope.USERS_ACT)
        product = Exchanger(client, shop, issuer, clock)
        assert is_refused(await product.exchange(KEY.sign(product.claims())))
        assert issuer.requests == []
        member = await join(client)
        assert (await product.exchange(member.id, USER_ID)).status_code == 200
