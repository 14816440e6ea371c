"""The authorization endpoint, and the exchange of its codes at the token endpoint."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import SystemClock, SystemIdGenerator
from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Client, Scope
from referral.core.entities.rate_limits import Rate
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.client_identification import DOCS_CLIENT_ID
from referral.core.use_cases.clients import RemoveClient
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import (
    API,
    NEW_PASSWORD,
    PASSWORD,
    Member,
    block_account,
    create_client,
    create_public_client,
    join,
    log_in,
)
from tests.support.page_forms import log_in_on_page
from tests.web.test_authorization import promote

REDIRECT_URI = "https://app.example.com/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ISSUER = "http://127.0.0.1:8000"


@pytest.fixture
async def app(database: PostgresDatabase) -> Client:
    """A public client."""
    return await create_app_client(database)


@pytest.fixture
async def ann(client: httpx.AsyncClient) -> AsyncIterator[Member]:
    """A user whose browser is logged in."""
    member = await join(client)
    assert (await log_in_on_page(client, member.email)).status_code == 303
    yield member
    client.cookies.clear()


async def create_app_client(database: PostgresDatabase, *uris: str) -> Client:
    """Create a public client."""
    return await create_public_client(database, f"app {uuid4()}", *(uris or [REDIRECT_URI]))


def request_for(client_id: object, /, **changed: str | None) -> dict[str, str]:
    """Return the parameters of a valid request; None removes one."""
    parameters: dict[str, str | None] = {
        "response_type": "code",
        "client_id": str(client_id),
        "redirect_uri": REDIRECT_URI,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "xyz & ü",
    }
    return {name: value for name, value in (parameters | changed).items() if value is not None}


async def authorize(client: httpx.AsyncClient, parameters: Any) -> httpx.Response:
    """Send an authorization request."""
    return await client.get("/oauth/authorize", params=parameters)


def answer_of(response: httpx.Response, redirect_uri: str = REDIRECT_URI) -> dict[str, str]:
    """Return the parameters that the client gets."""
    assert response.status_code == 302, response.text
    location = response.headers["Location"]
    assert location.startswith(redirect_uri)
    return {name: value for name, [value] in parse_qs(urlsplit(location).query).items()}


async def get_code(client: httpx.AsyncClient, app: Client) -> str:
    """Return a code for the user who is logged in."""
    return answer_of(await authorize(client, request_for(app.id)))["code"]


async def exchange(
    client: httpx.AsyncClient, code: str, client_id: object, **changed: Any
) -> httpx.Response:
    """Exchange a code at the token endpoint."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "client_id": str(client_id),
        "code_verifier": VERIFIER,
    } | changed.pop("form", {})
    sent = {name: value for name, value in form.items() if value is not None}
    return await client.post(f"{API}/auth/token", data=sent, **changed)


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the error code of RFC 6749."""
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, response.json()["error"]


async def test_application_of_an_admin_is_no_admin(
    client: httpx.AsyncClient, database: PostgresDatabase, app: Client, ann: Member
) -> None:
    """It reads and changes what a member may; the documentation page is the service's own."""
    await promote(ann, database)
    for client_id, status in ((app.id, 403), (DOCS_CLIENT_ID, 200)):
        uri = REDIRECT_URI if client_id == app.id else f"{ISSUER}/docs/oauth2-redirect"
        request = request_for(client_id, redirect_uri=uri)
        code = answer_of(await authorize(client, request), uri)["code"]
        tokens = await exchange(client, code, client_id, form={"redirect_uri": uri})
        headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
        assert (await client.get(f"{API}/me", headers=headers)).json()["role"] == "admin"
        assert (await client.get(f"{API}/clients", headers=headers)).status_code == status


async def test_code_flow_gives_the_tokens_of_the_user(
    client: httpx.AsyncClient, app: Client
) -> None:
    """A browser that is not logged in logs in first; the response has `state` and `iss`."""
    member = await join(client)
    first = await authorize(client, request_for(app.id))
    assert first.status_code == 302
    login_path, _, query = first.headers["Location"].partition("?")
    assert login_path == "/login"
    page = await client.get(first.headers["Location"])
    assert app.name in page.text
    logged_in = await log_in_on_page(client, member.email, query=query)
    assert logged_in.status_code == 303
    assert logged_in.headers["Location"] == f"/oauth/authorize?{query}"
    answer = answer_of(await client.get(logged_in.headers["Location"]))
    assert answer.keys() == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == ("xyz & ü", ISSUER)

    response = await exchange(client, answer["code"], app.id)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    tokens = response.json()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "account")
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    me = await client.get(f"{API}/me", headers=headers)
    assert me.json()["email"] == member.email
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert error_of(await client.post(f"{API}/auth/token", data=refresh)) == (400, "invalid_grant")
    named = await client.post(f"{API}/auth/token", data=refresh | {"client_id": str(app.id)})
    assert named.status_code == 200
    client.cookies.clear()


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"},
        {"client_id": "first-party"},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": REDIRECT_URI + "/"},
        {"redirect_uri": REDIRECT_URI + "?x=1"},
        {"redirect_uri": REDIRECT_URI + "#x"},
        {"redirect_uri": "https://app.example.com@evil.example/callback"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": "//evil.example"},
        {"redirect_uri": f"{REDIRECT_URI}\r\nX: y"},
    ],
)
@pytest.mark.parametrize("path", ["/oauth/authorize", "/login"])
async def test_unknown_client_or_foreign_uri_gets_a_page(
    client: httpx.AsyncClient, app: Client, ann: Member, changed: dict[str, str | None], path: str
) -> None:
    """There is no redirect to an address that the client did not register."""
    assert ann
    if path == "/login":
        client.cookies.clear()
    refused = await client.get(path, params=request_for(app.id, **changed))
    assert refused.status_code == 400
    assert "Location" not in refused.headers
    assert refused.headers["Content-Type"].startswith("text/html")
    assert "evil.example" not in refused.text


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
async def test_repeated_target_gets_a_page(
    client: httpx.AsyncClient, app: Client, ann: Member, name: str
) -> None:
    """Even if both values are the same."""
    assert ann
    parameters = request_for(app.id)
    refused = await authorize(client, [*parameters.items(), (name, parameters[name])])
    assert (refused.status_code, refused.headers.get("Location")) == (400, None)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1] + "+"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "account openid"}, "invalid_scope"),
    ],
)
async def test_other_errors_go_back_to_the_client(
    client: httpx.AsyncClient, app: Client, ann: Member, changed: dict[str, str | None], error: str
) -> None:
    """With the state and the issuer, before and after the login."""
    assert ann
    for _ in range(2):
        answer = answer_of(await authorize(client, request_for(app.id, **changed)))
        assert answer.keys() == {"error", "error_description", "state", "iss"}
        assert (answer["error"], answer["state"]) == (error, "xyz & ü")
        assert answer["iss"] == ISSUER
        assert answer["error_description"].isascii()
        client.cookies.clear()


@pytest.mark.parametrize("name", ["state", "response_type", "scope", "code_challenge", "nonce"])
async def test_repeated_parameter_goes_back_to_the_client(
    client: httpx.AsyncClient, app: Client, ann: Member, name: str
) -> None:
    """RFC 6749, section 3.1."""
    assert ann
    parameters = request_for(app.id, scope="account", nonce="x")
    repeated = [*parameters.items(), (name, "account")]
    assert answer_of(await authorize(client, repeated))["error"] == "invalid_request"


async def test_unknown_and_empty_parameters_are_ignored(
    client: httpx.AsyncClient, app: Client, ann: Member
) -> None:
    """RFC 6749, section 3.1; without a state, none comes back."""
    assert ann
    parameters = request_for(app.id, scope="", state="", prompt="login", nonce="x")
    assert answer_of(await authorize(client, parameters)).keys() == {"code", "iss"}


async def test_redirect_uri_keeps_its_query(
    client: httpx.AsyncClient, database: PostgresDatabase, ann: Member
) -> None:
    """RFC 6749, section 3.1.2. A native application is sent back to the port that it listens on."""
    assert ann
    uri = "http://127.0.0.1/callback?tenant=1"
    app = await create_app_client(database, uri)
    requested = "http://127.0.0.1:49152/callback?tenant=1"
    response = await authorize(client, request_for(app.id, redirect_uri=requested))
    answer = answer_of(response, f"{requested}&")
    assert answer["tenant"] == "1"
    form = {"redirect_uri": uri}
    assert error_of(await exchange(client, answer["code"], app.id, form=form))[0] == 400
    form = {"redirect_uri": requested}
    assert (await exchange(client, answer["code"], app.id, form=form)).status_code == 200


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"code": None}, (400, "invalid_request")),
        ({"redirect_uri": None}, (400, "invalid_request")),
        ({"code_verifier": None}, (400, "invalid_request")),
        ({"client_id": None}, (400, "invalid_request")),
        ({"client_id": "first-party"}, (401, "invalid_client")),
        ({"client_id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"}, (401, "invalid_client")),
        ({"client_id": str(DOCS_CLIENT_ID)}, (400, "invalid_grant")),
        ({"code": "unknown"}, (400, "invalid_grant")),
        ({"redirect_uri": REDIRECT_URI + "/"}, (400, "invalid_grant")),
        ({"code_verifier": VERIFIER[:-1] + "l"}, (400, "invalid_grant")),
        ({"code_verifier": CHALLENGE}, (400, "invalid_grant")),
        ({"code_verifier": "x"}, (400, "invalid_grant")),
        ({"code_verifier": "\0" * 43}, (400, "invalid_grant")),
        ({"scope": "admin"}, (400, "invalid_scope")),
    ],
)
async def test_wrong_exchange_is_refused(
    client: httpx.AsyncClient,
    app: Client,
    ann: Member,
    changed: dict[str, str | None],
    expected: tuple[int, str],
) -> None:
    """In the form of RFC 6749; the code is good for the right exchange afterwards."""
    assert ann
    code = await get_code(client, app)
    assert error_of(await exchange(client, code, app.id, form=changed)) == expected
    assert (await exchange(client, code, app.id)).status_code == 200


async def test_client_with_a_secret_authenticates_and_uses_pkce(
    client: httpx.AsyncClient, database: PostgresDatabase, ann: Member
) -> None:
    """By Basic or in the form; its refresh token needs the secret as well."""
    assert ann
    uris = [REDIRECT_URI]
    shop, secret = await create_client(database, f"shop {uuid4()}", [Scope.CODES_READ], uris)
    other, other_secret = await create_client(database, f"other {uuid4()}", [], uris)
    code = await get_code(client, shop)
    credentials = (str(shop.id), secret)
    nameless = {"client_id": None}
    assert error_of(await exchange(client, code, shop.id)) == (401, "invalid_client")
    wrong = {"client_secret": secret + "x"}
    assert error_of(await exchange(client, code, shop.id, form=wrong)) == (401, "invalid_client")
    others = (str(other.id), other_secret)
    refused = await exchange(client, code, other.id, auth=others)
    assert error_of(refused) == (400, "invalid_grant")
    two_ids = await exchange(client, code, other.id, auth=credentials)
    assert error_of(two_ids) == (400, "invalid_request")
    without_pkce = {"client_id": None, "code_verifier": None}
    refused = await exchange(client, code, shop.id, form=without_pkce, auth=credentials)
    assert error_of(refused) == (400, "invalid_request")
    tokens = await exchange(client, code, shop.id, form=nameless, auth=credentials)
    assert tokens.status_code == 200
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens.json()["refresh_token"]}
    named = refresh | {"client_id": str(shop.id)}
    assert error_of(await client.post(f"{API}/auth/token", data=named)) == (401, "invalid_client")
    refused = await client.post(f"{API}/auth/token", data=refresh, auth=others)
    assert error_of(refused) == (400, "invalid_grant")
    refreshed = await client.post(f"{API}/auth/token", data=refresh, auth=credentials)
    assert refreshed.status_code == 200
    grant = {"grant_type": "client_credentials"}
    refused = await client.post(f"{API}/auth/token", data=grant, auth=others)
    assert error_of(refused) == (400, "invalid_scope")


async def test_public_client_has_no_other_grant(client: httpx.AsyncClient, app: Client) -> None:
    """It cannot authenticate, also not with an empty secret, and so cannot introspect."""
    form = {"grant_type": "client_credentials", "client_id": str(app.id), "token": "x"}
    empty = f"Basic {b64encode(f'{app.id}:'.encode()).decode()}"
    for path in ("token", "introspect"):
        for headers in ({}, {"Authorization": empty}):
            refused = await client.post(f"{API}/auth/{path}", data=form, headers=headers)
            assert error_of(refused) == (401, "invalid_client")


async def test_removed_client_gets_nothing(
    client: httpx.AsyncClient, database: PostgresDatabase, app: Client, ann: Member
) -> None:
    """Neither with a code nor with a refresh token."""
    assert ann
    code = await get_code(client, app)
    tokens = (await exchange(client, await get_code(client, app), app.id)).json()
    record_audit = RecordAudit(SystemClock(), SystemIdGenerator())
    await RemoveClient(database, record_audit)(str(app.id), OPERATOR)
    assert error_of(await exchange(client, code, app.id)) == (401, "invalid_client")
    form = {
        "grant_type": "refresh_token",
        "refresh_token": tokens["refresh_token"],
        "client_id": str(app.id),
    }
    assert error_of(await client.post(f"{API}/auth/token", data=form)) == (401, "invalid_client")


async def test_one_of_fifty_exchanges_wins_and_loses_its_session(
    client: httpx.AsyncClient, app: Client, ann: Member
) -> None:
    """A code that is used twice may be stolen (RFC 9700, section 2.1.1)."""
    assert ann
    code = await get_code(client, app)
    responses = await asyncio.gather(*(exchange(client, code, app.id) for _ in range(50)))
    [won] = [response.json() for response in responses if response.status_code == 200]
    refused = [error_of(response) for response in responses if response.status_code != 200]
    assert refused == [(400, "invalid_grant")] * 49
    form = {"grant_type": "refresh_token", "refresh_token": won["refresh_token"]}
    named = form | {"client_id": str(app.id)}
    assert error_of(await client.post(f"{API}/auth/token", data=named)) == (400, "invalid_grant")
    headers = {"Authorization": f"Bearer {won['access_token']}"}
    changed = await client.patch(f"{API}/me", json={"locale": "ru"}, headers=headers)
    assert changed.status_code == 401


async def test_spent_refresh_token_of_an_application_ends_its_session(
    client: httpx.AsyncClient, app: Client, ann: Member
) -> None:
    """A public client has no secret, so its refresh tokens rotate (RFC 9700, section 2.2.2)."""
    assert ann

    async def refresh(token: str) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": str(app.id)}
        return await client.post(f"{API}/auth/token", data=form)

    tokens = [(await exchange(client, await get_code(client, app), app.id)).json()]
    for _ in range(2):
        tokens.append((await refresh(tokens[-1]["refresh_token"])).json())
    assert len({pair["refresh_token"] for pair in tokens}) == 3
    for spent_or_latest in (tokens[0], tokens[2]):
        refused = await refresh(spent_or_latest["refresh_token"])
        assert error_of(refused) == (400, "invalid_grant")


@pytest.mark.parametrize("end", ["password", "block", "erase"])
async def test_codes_and_the_login_end_with_the_account(
    client: httpx.AsyncClient, database: PostgresDatabase, app: Client, ann: Member, end: str
) -> None:
    """A new password, a block and an erasure end codes on their way and the browser's login."""
    code = await get_code(client, app)
    if end == "password":
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        assert (await ann.request("PUT", "/me/password", json=body)).status_code == 204
    elif end == "block":
        await block_account(database, ann.email)
    else:
        body = {"password": PASSWORD}
        assert (await ann.request("DELETE", "/me", json=body)).status_code == 204
    assert error_of(await exchange(client, code, app.id)) == (400, "invalid_grant")
    again = await authorize(client, request_for(app.id))
    assert again.headers["Location"].startswith("/login?")


async def test_code_is_in_no_log_and_no_cache(
    client: httpx.AsyncClient, app: Client, ann: Member, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor in a Referer of the redirect; the page of the login is not cached either."""
    assert ann
    response = await authorize(client, request_for(app.id))
    code = answer_of(response)["code"]
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    await exchange(client, code, app.id)
    output = capsys.readouterr()
    assert "/oauth/authorize" in output.out + output.err
    assert code not in output.out + output.err


async def test_only_get_is_allowed(client: httpx.AsyncClient, app: Client) -> None:
    """RFC 6749, section 3.1: POST is optional."""
    response = await client.post("/oauth/authorize", data=request_for(app.id))
    assert response.status_code == 405


async def test_codes_are_limited_by_account(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """The client is told, in the form of RFC 6749."""
    limited = msgspec.structs.replace(settings, limit_token=Rate.parse("3/minute"))
    app = await create_app_client(database)
    async with serve(limited) as client:
        member = await join(client)
        await log_in_on_page(client, member.email)
        answers = [answer_of(await authorize(client, request_for(app.id))) for _ in range(4)]
    assert [answer.get("error") for answer in answers] == [None] * 3 + ["temporarily_unavailable"]


async def test_metadata_describes_the_code_flow(client: httpx.AsyncClient) -> None:
    """As RFC 8414, RFC 7636 and RFC 9207 name it."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["authorization_endpoint"] == f"{ISSUER}/oauth/authorize"
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["response_modes_supported"] == ["query"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert "authorization_code" in metadata["grant_types_supported"]
    assert "none" in metadata["token_endpoint_auth_methods_supported"]


async def test_code_flow_works_without_the_password_grant(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase, key_file: Path
) -> None:
    """The password is typed on the page only."""
    assert key_file
    closed = msgspec.structs.replace(settings, password_grant="off")  # noqa: S106 - a switch
    app = await create_app_client(database)
    async with serve(settings) as client:
        member = await join(client)
    async with serve(closed) as client:
        refused = await log_in(client, member.email)
        assert error_of(refused) == (400, "unsupported_grant_type")
        query = urlencode(request_for(app.id))
        await log_in_on_page(client, member.email, query=query)
        assert (await exchange(client, await get_code(client, app), app.id)).status_code == 200
