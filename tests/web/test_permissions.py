"""The table of permissions: guards, the API document and docs/administration.md agree with it."""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.access_tokens import JwtAccessTokenIssuer
from referral.adapters.security.keys import KeyRing
from referral.core.entities.clients import GRANTABLE_SCOPES, Scope
from referral.core.entities.users import Role
from referral.settings import Settings
from referral.web.permissions import CONDITIONAL_SCOPES, REQUIRED_SCOPES
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, Member, block_account, create_client, join
from tests.support.database_dump import dump_tables
from tests.support.fakes.system import FakeClock
from tests.tools.openapi_document import OPENAPI_FILE
from tests.web.test_authorization import CLIENT_SCOPES, promote, request_for

DOCS = Path(__file__).parents[2] / "docs" / "administration.md"
OPERATIONS = {
    operation["operationId"]: (f"{method.upper()} {path}", operation)
    for path, item in json.loads(OPENAPI_FILE.read_bytes())["paths"].items()
    for method, operation in item.items()
}


def test_document_states_the_scope_of_each_operation() -> None:
    """And no other operation is for admins and clients alone."""
    documented = {
        operation_id: {"clientCredentials": [scope]}
        for operation_id, scope in REQUIRED_SCOPES.items()
    }
    for operation_id, (_, operation) in OPERATIONS.items():
        if operation_id in documented:
            assert documented.pop(operation_id) in operation["security"]
    assert documented == {}


def test_docs_list_the_permissions() -> None:
    """Every route of the table, by its path."""
    rows = [
        f"| `{OPERATIONS[operation_id][0].replace(API, '')}` | `{scope}` |"
        for operation_id, scope in REQUIRED_SCOPES.items()
    ]
    table = "\n".join(["| operation | scope |", "|---|---|", *sorted(rows, key=_path)])
    [listed] = re.findall(
        r"<!-- permissions -->\n(.*?)\n<!-- /permissions -->", DOCS.read_text(), re.DOTALL
    )
    assert listed == table


def test_docs_list_the_conditional_permissions() -> None:
    """Every operation, with its scope."""
    expected = {
        (OPERATIONS[operation_id][0].replace(API, ""), str(scope))
        for operation_id, scope in CONDITIONAL_SCOPES.items()
    }
    [table] = re.findall(
        r"<!-- conditional permissions -->\n(.*?)<!-- /conditional", DOCS.read_text(), re.DOTALL
    )
    assert set(re.findall(r"^\| `(.*?)` \| `(.*?)` \|", table, re.MULTILINE)) == expected


def _path(row: str) -> tuple[str, str]:
    method, _, path = row.partition(" /")
    return path, method


async def demote(admin: Member, database: PostgresDatabase) -> None:
    """Take the role away."""
    async with database.begin() as repositories:
        user = await repositories.users.lock(UUID(admin.id))
        assert user is not None
        await repositories.users.save(replace(user, role=Role.MEMBER))


async def block(admin: Member, database: PostgresDatabase) -> None:
    """Block the admin."""
    await block_account(database, admin.email)


async def log_out(admin: Member, _: PostgresDatabase) -> None:
    """End the admin's session."""
    token = admin.headers["Authorization"].partition(" ")[2]
    await admin.client.post(f"{API}/auth/revoke", data={"token": token})


async def erase(admin: Member, _: PostgresDatabase) -> None:
    """Erase the admin."""
    erased = await admin.request("DELETE", "/me", json={"password": PASSWORD})
    assert erased.status_code == 204


Change = Callable[[Member, PostgresDatabase], Awaitable[None]]
CHANGES: dict[Change, int] = {demote: 403, block: 403, log_out: 401, erase: 403}
"""How an admin loses the rights, and the status from then on."""


@pytest.fixture
async def owner(client: httpx.AsyncClient) -> tuple[Member, dict[str, Any]]:
    """A member with a code."""
    owner = await join(client)
    return owner, await owner.issue_code()


async def assert_refused(
    database: PostgresDatabase, owner: tuple[Member, dict[str, Any]], caller: Member, status: int
) -> None:
    """Every route refuses the caller, and nothing is stored or changed."""
    before = await dump_tables(database)
    for route in CLIENT_SCOPES:
        request = request_for(route, *owner)
        response = await caller.client.request(**request, headers=caller.headers)
        assert response.status_code == status, (route, response.text)
        assert await dump_tables(database) == before, route


@pytest.mark.parametrize("change", CHANGES)
async def test_admin_loses_the_rights_at_once(
    client: httpx.AsyncClient,
    database: PostgresDatabase,
    owner: tuple[Member, dict[str, Any]],
    change: Change,
) -> None:
    """With the role, the session or the account; the access token would live for minutes."""
    admin = await join(client)
    await promote(admin, database)
    assert (await admin.request("GET", "/audit")).status_code == 200
    await change(admin, database)
    await assert_refused(database, owner, admin, CHANGES[change])


async def test_token_for_an_admin_has_no_rights(
    client: httpx.AsyncClient,
    database: PostgresDatabase,
    owner: tuple[Member, dict[str, Any]],
    issuer: JwtAccessTokenIssuer,
) -> None:
    """A token without a session, such as one that a client obtained, is that of a member."""
    admin = await join(client)
    await promote(admin, database)
    token = issuer.issue(admin.id, "a client", Scope.ACCOUNT)
    delegated = replace(admin, headers={"Authorization": f"Bearer {token}"})
    await assert_refused(database, owner, delegated, 403)


async def test_expired_token_of_an_admin_has_no_rights(
    settings: Settings, serve: ServiceFactory, clock: FakeClock, database: PostgresDatabase
) -> None:
    """It is 401, as everywhere."""
    async with serve(settings) as client:
        owner, admin = await join(client), await join(client)
        await promote(admin, database)
        code = await owner.issue_code()
        clock.advance(minutes=11)
        await assert_refused(database, (owner, code), admin, 401)


@pytest.fixture
def issuer(key_file: Path) -> JwtAccessTokenIssuer:
    """An issuer of the service's tokens."""
    return JwtAccessTokenIssuer(Settings().public_url, KeyRing([key_file]), 10, FakeClock())


@pytest.mark.parametrize("route", CLIENT_SCOPES)
async def test_other_scopes_open_nothing(
    client: httpx.AsyncClient,
    owner: tuple[Member, dict[str, Any]],
    issuer: JwtAccessTokenIssuer,
    route: str,
) -> None:
    """All scopes of a client but the right one and `admin`, together; `admin` alone is enough."""
    client_id = "01938f12-77a0-7b3c-8d5e-4f2a1b9c6d80"
    others = sorted(GRANTABLE_SCOPES - {CLIENT_SCOPES[route], Scope.ADMIN})
    for scopes in (others, [Scope.ADMIN]):
        token = issuer.issue(client_id, client_id, " ".join(scopes))
        headers = {"Authorization": f"Bearer {token}"}
        response = await client.request(**request_for(route, *owner), headers=headers)
        is_refused = response.status_code == 403
        assert is_refused == (scopes is others), response.text


async def is_open(
    client: httpx.AsyncClient, operation_id: str, member: Member, secret: tuple[str, str]
) -> bool:
    """Return whether a client gets what a scope opens; it has a secret for Basic."""
    route, _ = OPERATIONS[operation_id]
    method, _, path = route.partition(" ")
    grant = {"grant_type": "client_credentials"}
    token = (await client.post(f"{API}/auth/token", data=grant, auth=secret)).json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    if operation_id == "issueToken":
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": member.id,
            "subject_token_type": "urn:referral:token-type:user-id",
        }
        return (await client.post(path, data=form, auth=secret)).status_code == 200
    if operation_id == "introspectToken":
        form = {"token": member.headers["Authorization"].partition(" ")[2]}
        found = await client.post(path, data=form, auth=secret)
        assert found.json()["active"] is True
        return "username" in found.json()
    values: dict[str, Any] = {"headers": headers}
    if "lookup" in path:
        values |= {"params" if method == "GET" else "json": {"email": member.email}}
    response = await client.request(method, path.format(user_id=member.id), **values)
    assert response.status_code in {200, 403, 404}
    return response.status_code != 403


@pytest.mark.parametrize("operation_id", CONDITIONAL_SCOPES)
async def test_conditional_scope_opens_what_it_says(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase, operation_id: str
) -> None:
    """The scope or `admin` alone does, and all others together do not."""
    scope = CONDITIONAL_SCOPES[operation_id]
    others = GRANTABLE_SCOPES - {scope, Scope.ADMIN}
    async with serve(msgspec.structs.replace(settings, lookup_access="authenticated")) as client:
        member = await join(client)
        for scopes, expected in (({scope}, True), ({Scope.ADMIN}, True), (others, False)):
            created, secret = await create_client(database, f"shop {uuid4()}", scopes)
            basic = (str(created.id), secret)
            assert await is_open(client, operation_id, member, basic) == expected
