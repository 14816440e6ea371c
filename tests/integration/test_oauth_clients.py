"""OAuth clients: their tokens, scopes and introspection."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.clients import Scope
from referral.core.errors import InvalidScope
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, block_account, join, log_in
from tests.support.api_client import create_client as create_any_client

ClientCredentials = tuple[str, str]


async def create_client(database: PostgresDatabase, *scopes: Scope) -> ClientCredentials:
    """Register a client; return its id and secret."""
    client, secret = await create_any_client(database, f"shop {uuid4()}", scopes)
    return str(client.id), secret


async def request_token(
    client: httpx.AsyncClient, credentials: ClientCredentials, scope: str = ""
) -> httpx.Response:
    """Request a token with the client credentials grant."""
    form = {"grant_type": "client_credentials", "scope": scope}
    return await client.post(f"{API}/auth/token", data=form, auth=credentials)


async def authorization_headers(
    client: httpx.AsyncClient, credentials: ClientCredentials
) -> dict[str, str]:
    """Return the headers of a client that has logged in."""
    token = (await request_token(client, credentials)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def introspect(
    client: httpx.AsyncClient, credentials: ClientCredentials, token: str
) -> dict[str, Any]:
    """Introspect a token as a client."""
    response = await client.post(f"{API}/auth/introspect", data={"token": token}, auth=credentials)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = response.json()
    return found


async def test_client_gets_a_token_for_its_scopes(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """A client gets all its scopes or the requested ones, and never a refresh token."""
    credentials = await create_client(database, Scope.REFERRALS_READ, Scope.CODES_READ)
    token = (await request_token(client, credentials)).json()
    assert token["scope"] == "codes:read referrals:read"
    assert token.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (await request_token(client, credentials, "codes:read")).json()["scope"] == "codes:read"
    rejected = await request_token(client, credentials, "codes:read users:read")
    assert (rejected.status_code, rejected.json()["error"]) == (400, "invalid_scope")
    assert (await request_token(client, credentials, "account")).json()["error"] == "invalid_scope"


async def test_client_needs_a_client_scope(database: PostgresDatabase) -> None:
    """A client without a scope, or with the scope of users, cannot be created."""
    for scopes in ([Scope.ACCOUNT], []):
        with pytest.raises(InvalidScope):
            await create_client(database, *scopes)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"no colon").decode(),
        "Basic " + b64encode(b"\xff:\xff").decode(),
        "Basic " + b64encode(b"not-an-id:secret").decode(),
        "Basic " + b64encode(b"01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41:secret").decode(),
        "Bearer abc",
    ],
)
@pytest.mark.parametrize("path", ["token", "introspect"])
async def test_missing_client_authentication_is_rejected(
    client: httpx.AsyncClient, header: str | None, path: str
) -> None:
    """The response is 401 as RFC 6749 defines it, and names the scheme."""
    headers = {"Authorization": header} if header else {}
    form = {"grant_type": "client_credentials", "token": "abc"}
    rejected = await client.post(f"{API}/auth/{path}", data=form, headers=headers)
    assert (rejected.status_code, rejected.json()["error"]) == (401, "invalid_client")
    assert rejected.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("path", ["token", "revoke", "introspect"])
async def test_client_authenticates_in_the_form(
    client: httpx.AsyncClient, database: PostgresDatabase, path: str
) -> None:
    """`client_secret_post` works wherever HTTP Basic does, but not both at once (RFC 6749, 2.3)."""
    credentials = await create_client(database, Scope.CODES_READ)
    client_id, secret = credentials
    form = {"grant_type": "client_credentials", "token": "abc", "client_id": client_id}
    url = f"{API}/auth/{path}"
    accepted = await client.post(url, data=form | {"client_secret": secret})
    assert accepted.status_code == 200, accepted.text
    assert (await client.post(url, data=form, auth=credentials)).status_code == 200
    wrong = await client.post(url, data=form | {"client_secret": secret + "x"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    both = await client.post(url, data=form | {"client_secret": secret}, auth=credentials)
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")
    nameless = {"grant_type": "client_credentials", "token": "abc", "client_secret": secret}
    rejected = await client.post(url, data=nameless)
    assert (rejected.status_code, rejected.json()["error"]) == (400, "invalid_request")


async def test_metadata_advertises_client_authentication(client: httpx.AsyncClient) -> None:
    """Libraries choose their method by the metadata (RFC 8414)."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    methods = ["client_secret_basic", "client_secret_post"]
    assert metadata["introspection_endpoint_auth_methods_supported"] == methods
    for endpoint in ("token", "revocation"):
        assert metadata[f"{endpoint}_endpoint_auth_methods_supported"] == ["none", *methods]


async def test_wrong_client_secret_is_rejected(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """A wrong secret gets 401 and `invalid_client`."""
    client_id, secret = await create_client(database, Scope.CODES_READ)
    rejected = await request_token(
        client, (client_id, secret[:-1] + ("A" if secret[-1] != "A" else "B"))
    )
    assert (rejected.status_code, rejected.json()["error"]) == (401, "invalid_client")


def basic_header(text: bytes) -> str:
    """Return the Authorization header for these Basic credentials."""
    return f"Basic {b64encode(text).decode()}"


UNKNOWN_CLIENT = basic_header(b"01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41:secret")
FORMS = {
    "password": (
        "token",
        {"grant_type": "password", "username": "ann@example.com", "password": "x"},
    ),
    "refresh": ("token", {"grant_type": "refresh_token", "refresh_token": "x"}),
    "no grant": ("token", {"x": "y"}),
    "revoke": ("revoke", {"token": "x"}),
    "introspect": ("introspect", {"token": "x"}),
}


@pytest.mark.parametrize(("path", "form"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "header",
    [
        UNKNOWN_CLIENT,
        UNKNOWN_CLIENT.replace("Basic", "bAsIc"),
        "Basic",
        "Basic !",
        basic_header(b"x"),
        basic_header(b":x"),
        basic_header(b"first-party:"),
        "Basic " + "A" * 2000,
    ],
)
async def test_wrong_client_authentication_is_never_ignored(
    client: httpx.AsyncClient, header: str, path: str, form: dict[str, str]
) -> None:
    """Wrong client credentials are 401 even where none are required."""
    headers = {"Authorization": header}
    rejected = await client.post(f"{API}/auth/{path}", data=form, headers=headers)
    assert (rejected.status_code, rejected.json()["error"]) == (401, "invalid_client")
    assert rejected.headers["WWW-Authenticate"].startswith("Basic ")
    assert rejected.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["token", "revoke"])
async def test_two_authorization_headers_are_rejected(client: httpx.AsyncClient, path: str) -> None:
    """Two Authorization headers are ambiguous, so the request is rejected."""
    headers = [("Authorization", "Bearer x"), ("Authorization", "Basic Og==")]
    rejected = await client.post(f"{API}/auth/{path}", data={"token": "x"}, headers=headers)
    assert (rejected.status_code, rejected.json()["error"]) == (401, "invalid_client")


async def test_client_cannot_use_the_grants_of_users(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """A client cannot log a user in or refresh, and uses up nothing; it can revoke a token."""
    credentials = await create_client(database, Scope.CODES_READ)
    ann = await join(client)
    refresh_token = (await log_in(client, ann.email)).json()["refresh_token"]
    password = {"grant_type": "password", "username": ann.email, "password": PASSWORD}
    refresh = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    for form in (password, refresh):
        rejected = await client.post(f"{API}/auth/token", data=form, auth=credentials)
        assert (rejected.status_code, rejected.json()["error"]) == (400, "unauthorized_client")
    renewed = await client.post(f"{API}/auth/token", data=refresh)
    form = {"token": renewed.json()["refresh_token"]}
    assert (await client.post(f"{API}/auth/revoke", data=form, auth=credentials)).status_code == 200
    reused = refresh | {"refresh_token": form["token"]}
    assert (await client.post(f"{API}/auth/token", data=reused)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("body", [b"\xff=", b"token=1&token=2", b"a=1&" * 21, b""])
async def test_client_is_authenticated_before_the_form_is_judged(
    client: httpx.AsyncClient, database: PostgresDatabase, body: bytes
) -> None:
    """A malformed form is 401 without the credentials that introspection needs, else 400."""
    client_id, secret = await create_client(database, Scope.CODES_READ)
    form: Any = {"content": body, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}

    async def error(path: str, **auth: Any) -> tuple[int, str]:
        response = await client.post(f"{API}/auth/{path}", **form, **auth)
        return response.status_code, response.json()["error"]

    assert await error("introspect") == (401, "invalid_client")
    for path in ("introspect", "revoke", "token"):
        assert await error(path, auth=(client_id, secret)) == (400, "invalid_request")
        assert await error(path, auth=(client_id, "a guess")) == (401, "invalid_client")
    for path in ("revoke", "token"):
        assert await error(path) == (400, "invalid_request")


async def test_bearer_token_is_no_client_authentication(client: httpx.AsyncClient) -> None:
    """A bearer token beside a form is ignored, whether it is valid or not."""
    ann = await join(client)
    form = {"grant_type": "password", "username": ann.email, "password": PASSWORD}
    for headers in (ann.headers, {"Authorization": "Bearer x"}):
        response = await client.post(f"{API}/auth/token", data=form, headers=headers)
        assert response.status_code == 200


async def test_client_with_scope_reads_all_referrals(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """`referrals:read` shows everything, whatever the visibility; another scope gets 403."""
    hidden = msgspec.structs.replace(settings, referrals_visibility="owner")
    async with serve(hidden) as client:
        ann = await join(client)
        code = await ann.issue_code()
        bob = await join(client, referral_code=code["code"])
        path = f"{API}/users/{ann.id}/referrals"
        with_scope = await authorization_headers(
            client, await create_client(database, Scope.REFERRALS_READ)
        )
        assert (await client.get(path, headers=with_scope)).json()["items"][0]["email"] == bob.email
        without_scope = await authorization_headers(
            client, await create_client(database, Scope.CODES_READ)
        )
        rejected = await client.get(path, headers=without_scope)
        assert rejected.status_code == 403
        assert 'error="insufficient_scope"' in rejected.headers["WWW-Authenticate"]
        assert (await client.get(f"{API}/me", headers=with_scope)).status_code == 403


async def test_client_with_scope_looks_codes_up(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """Under `authenticated` a look-up needs `codes:read`: another scope gets 403, no token 401."""
    closed = msgspec.structs.replace(settings, lookup_access="authenticated")
    async with serve(closed) as client:
        ann = await join(client)
        code = await ann.issue_code()
        query = {"email": ann.email}
        with_scope = await authorization_headers(
            client, await create_client(database, Scope.CODES_READ)
        )
        without_scope = await authorization_headers(
            client, await create_client(database, Scope.REFERRALS_READ)
        )
        found = await client.get(f"{API}/codes/lookup", params=query, headers=with_scope)
        assert found.json()["code"] == code["code"]
        posted = await client.post(f"{API}/codes/lookup", json=query, headers=without_scope)
        got = await client.get(f"{API}/codes/lookup", params=query, headers=without_scope)
        assert (posted.status_code, got.status_code) == (403, 403)
        assert (await client.get(f"{API}/codes/lookup", params=query)).status_code == 401


async def test_introspection_describes_a_token(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Both kinds of token are described; only clients with `users:read` see the e-mail."""
    credentials = await create_client(database, Scope.CODES_READ)
    trusted = await create_client(database, Scope.USERS_READ)
    ann = await join(client)
    tokens = (await log_in(client, ann.email)).json()
    found = await introspect(client, credentials, tokens["access_token"])
    assert found["active"] is True
    assert (found["sub"], found["client_id"], found["scope"]) == (ann.id, "first-party", "account")
    assert found["exp"] - found["iat"] == tokens["expires_in"]
    assert "username" not in found
    assert found["email_verified"] is False
    assert (await introspect(client, trusted, tokens["access_token"]))["username"] == ann.email
    assert (await introspect(client, credentials, tokens["refresh_token"]))["sub"] == ann.id
    own = (await request_token(client, credentials)).json()["access_token"]
    of_client = await introspect(client, credentials, own)
    assert of_client["sub"] == credentials[0]
    assert "email_verified" not in of_client
    assert await introspect(client, credentials, "no token") == {"active": False}


@pytest.mark.parametrize("end", ["revoke", "block", "erase"])
async def test_introspection_knows_that_a_session_has_ended(
    client: httpx.AsyncClient, database: PostgresDatabase, end: str
) -> None:
    """A token of an ended session is inactive at once, even if its signature is still valid."""
    credentials = await create_client(database, Scope.CODES_READ)
    ann = await join(client)
    tokens = (await log_in(client, ann.email)).json()
    if end == "revoke":
        await client.post(f"{API}/auth/revoke", data={"token": tokens["refresh_token"]})
    elif end == "block":
        await block_account(database, ann.email)
    else:
        await ann.request("DELETE", "/me", json={"password": PASSWORD})
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert await introspect(client, credentials, token) == {"active": False}


async def test_used_refresh_token_is_inactive(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Only the latest refresh token of a session is active."""
    credentials = await create_client(database, Scope.CODES_READ)
    first = (await log_in(client, (await join(client)).email)).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": first}
    second = (await client.post(f"{API}/auth/token", data=form)).json()["refresh_token"]
    assert await introspect(client, credentials, first) == {"active": False}
    assert (await introspect(client, credentials, second))["active"] is True


async def test_introspection_hides_an_unconfirmed_email(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """An unconfirmed e-mail proves nothing, so a client must not see it."""
    trusted = await create_client(database, Scope.USERS_READ)
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        ann = await join(client)
        tokens = (await log_in(client, ann.email)).json()
        for token in (tokens["access_token"], tokens["refresh_token"]):
            found = await introspect(client, trusted, token)
            assert (found["active"], found["email_verified"]) == (True, False)
            assert ann.email not in str(found)
