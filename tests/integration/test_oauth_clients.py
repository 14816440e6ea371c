"""Other services: their tokens, and what they may ask."""

from base64 import b64encode
from typing import Any

import httpx
import msgspec
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import RandomTokenGenerator, SystemClock, SystemIdGenerator
from referral.core.entities.clients import Scope
from referral.core.errors import InvalidScope
from referral.core.use_cases.clients import CreateClient
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, block_account, join, log_in

ClientCredentials = tuple[str, str]


async def create_client(database: PostgresDatabase, *scopes: Scope) -> ClientCredentials:
    """Let a client in."""
    use = CreateClient(SystemClock(), database, SystemIdGenerator(), RandomTokenGenerator())
    client, secret = await use("shop", scopes)
    return str(client.id), secret


async def request_token(
    client: httpx.AsyncClient, pair: ClientCredentials, scope: str = ""
) -> httpx.Response:
    """Ask for a client's token."""
    form = {"grant_type": "client_credentials", "scope": scope}
    return await client.post(f"{API}/auth/token", data=form, auth=pair)


async def authorization_headers(
    client: httpx.AsyncClient, pair: ClientCredentials
) -> dict[str, str]:
    """Authorise as a client."""
    token = (await request_token(client, pair)).json()["access_token"]
    return {"Authorization": f"Bearer {token}"}


async def introspect(
    client: httpx.AsyncClient, pair: ClientCredentials, token: str
) -> dict[str, Any]:
    """Ask about a token."""
    answer = await client.post(f"{API}/auth/introspect", data={"token": token}, auth=pair)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


async def test_a_client_gets_a_token_for_its_scopes(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """All of them, or those it asks for; never a refresh token."""
    pair = await create_client(database, Scope.REFERRALS_READ, Scope.CODES_READ)
    every = (await request_token(client, pair)).json()
    assert every["scope"] == "codes:read referrals:read"
    assert every.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (await request_token(client, pair, "codes:read")).json()["scope"] == "codes:read"
    refused = await request_token(client, pair, "codes:read users:read")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert (await request_token(client, pair, "account")).json()["error"] == "invalid_scope"


async def test_nobody_can_give_a_client_an_account(database: PostgresDatabase) -> None:
    """The scope of users is not for clients, and a client without a scope is good for nothing."""
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
async def test_who_does_not_say_who_it_is_gets_nothing(
    client: httpx.AsyncClient, header: str | None, path: str
) -> None:
    """401 in the form of RFC 6749, and how to authenticate."""
    headers = {"Authorization": header} if header else {}
    form = {"grant_type": "client_credentials", "token": "abc"}
    refused = await client.post(f"{API}/auth/{path}", data=form, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_wrong_secret_is_refused(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Neither a token nor an answer about one."""
    client_id, secret = await create_client(database, Scope.CODES_READ)
    refused = await request_token(
        client, (client_id, secret[:-1] + ("A" if secret[-1] != "A" else "B"))
    )
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def basic_header(text: bytes) -> str:
    """Encode credentials."""
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
    [UNKNOWN_CLIENT, UNKNOWN_CLIENT.replace("Basic", "bAsIc"), "Basic", "Basic !",
     basic_header(b"x"), basic_header(b":x"),
     basic_header(b"first-party:"), "Basic " + "A" * 2000],
)  # fmt: skip
async def test_wrong_authentication_is_never_ignored(
    client: httpx.AsyncClient, header: str, path: str, form: dict[str, str]
) -> None:
    """Whoever says which client it is has to prove it, also where nobody has to say."""
    headers = {"Authorization": header}
    refused = await client.post(f"{API}/auth/{path}", data=form, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert refused.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["token", "revoke"])
async def test_two_authentications_are_refused(client: httpx.AsyncClient, path: str) -> None:
    """Nobody is to guess which of the two counts."""
    headers = [("Authorization", "Bearer x"), ("Authorization", "Basic Og==")]
    refused = await client.post(f"{API}/auth/{path}", data={"token": "x"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


async def test_a_client_has_its_own_grant_alone(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """With its authentication a user neither logs in nor stays so, and nothing is used up; it may
    revoke, as anyone may who has the token.
    """
    pair = await create_client(database, Scope.CODES_READ)
    ann = await join(client)
    refresh_token = (await log_in(client, ann.email)).json()["refresh_token"]
    password = {"grant_type": "password", "username": ann.email, "password": PASSWORD}
    refresh = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    for form in (password, refresh):
        refused = await client.post(f"{API}/auth/token", data=form, auth=pair)
        assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
    latest = await client.post(f"{API}/auth/token", data=refresh)
    form = {"token": latest.json()["refresh_token"]}
    assert (await client.post(f"{API}/auth/revoke", data=form, auth=pair)).status_code == 200
    over = refresh | {"refresh_token": form["token"]}
    assert (await client.post(f"{API}/auth/token", data=over)).json()["error"] == "invalid_grant"


async def test_an_access_token_authenticates_no_client(client: httpx.AsyncClient) -> None:
    """A bearer beside a form is no authentication of a client: it is left alone, right or wrong."""
    ann = await join(client)
    form = {"grant_type": "password", "username": ann.email, "password": PASSWORD}
    for headers in (ann.headers, {"Authorization": "Bearer x"}):
        answer = await client.post(f"{API}/auth/token", data=form, headers=headers)
        assert answer.status_code == 200


async def test_a_client_reads_any_users_referrals_in_full(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """With the scope, however little strangers see; without it, 403."""
    hidden = msgspec.structs.replace(settings, referrals_visibility="owner")
    async with serve(hidden) as client:
        ann = await join(client)
        code = await ann.issue_code()
        bob = await join(client, referral_code=code["code"])
        path = f"{API}/users/{ann.id}/referrals"
        reads = await authorization_headers(
            client, await create_client(database, Scope.REFERRALS_READ)
        )
        assert (await client.get(path, headers=reads)).json()["items"][0]["email"] == bob.email
        cannot = await authorization_headers(
            client, await create_client(database, Scope.CODES_READ)
        )
        refused = await client.get(path, headers=cannot)
        assert refused.status_code == 403
        assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
        assert (await client.get(f"{API}/me", headers=reads)).status_code == 403


async def test_a_client_looks_codes_up_where_strangers_cannot(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """`codes:read` is enough under `authenticated`; another scope and nobody are not."""
    closed = msgspec.structs.replace(settings, lookup_access="authenticated")
    async with serve(closed) as client:
        ann = await join(client)
        code = await ann.issue_code()
        where = {"email": ann.email}
        reads = await authorization_headers(client, await create_client(database, Scope.CODES_READ))
        cannot = await authorization_headers(
            client, await create_client(database, Scope.REFERRALS_READ)
        )
        found = await client.get(f"{API}/codes/lookup", params=where, headers=reads)
        assert found.json()["code"] == code["code"]
        posted = await client.post(f"{API}/codes/lookup", json=where, headers=cannot)
        asked = await client.get(f"{API}/codes/lookup", params=where, headers=cannot)
        assert (posted.status_code, asked.status_code) == (403, 403)
        assert (await client.get(f"{API}/codes/lookup", params=where)).status_code == 401


async def test_introspection_tells_what_a_token_is(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Of either kind; the address is for clients with `users:read`."""
    pair = await create_client(database, Scope.CODES_READ)
    trusted = await create_client(database, Scope.USERS_READ)
    ann = await join(client)
    tokens = (await log_in(client, ann.email)).json()
    found = await introspect(client, pair, tokens["access_token"])
    assert found["active"] is True
    assert (found["sub"], found["client_id"], found["scope"]) == (ann.id, "first-party", "account")
    assert found["exp"] - found["iat"] == tokens["expires_in"]
    assert "username" not in found
    assert found["email_verified"] is False
    assert (await introspect(client, trusted, tokens["access_token"]))["username"] == ann.email
    assert (await introspect(client, pair, tokens["refresh_token"]))["sub"] == ann.id
    own = (await request_token(client, pair)).json()["access_token"]
    of_client = await introspect(client, pair, own)
    assert of_client["sub"] == pair[0]
    assert "email_verified" not in of_client
    assert await introspect(client, pair, "no token") == {"active": False}


@pytest.mark.parametrize("end", ["revoke", "block", "erase"])
async def test_introspection_sees_the_end_of_a_session_at_once(
    client: httpx.AsyncClient, database: PostgresDatabase, end: str
) -> None:
    """An access token that still verifies is not active any more."""
    pair = await create_client(database, Scope.CODES_READ)
    ann = await join(client)
    tokens = (await log_in(client, ann.email)).json()
    if end == "revoke":
        await client.post(f"{API}/auth/revoke", data={"token": tokens["refresh_token"]})
    elif end == "block":
        await block_account(database, ann.email)
    else:
        await ann.request("DELETE", "/me", json={"password": PASSWORD})
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert await introspect(client, pair, token) == {"active": False}


async def test_a_used_refresh_token_is_not_active(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Only the newest of a session is."""
    pair = await create_client(database, Scope.CODES_READ)
    first = (await log_in(client, (await join(client)).email)).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": first}
    second = (await client.post(f"{API}/auth/token", data=form)).json()["refresh_token"]
    assert await introspect(client, pair, first) == {"active": False}
    assert (await introspect(client, pair, second))["active"] is True


async def test_introspection_names_no_address_before_it_is_confirmed(
    serve: ServiceFactory, settings: Settings, database: PostgresDatabase
) -> None:
    """It may be anybody's: a client that trusted it would let in whoever typed it."""
    trusted = await create_client(database, Scope.USERS_READ)
    async with serve(msgspec.structs.replace(settings, email_verification="on")) as client:
        ann = await join(client)
        tokens = (await log_in(client, ann.email)).json()
        for token in (tokens["access_token"], tokens["refresh_token"]):
            found = await introspect(client, trusted, token)
            assert (found["active"], found["email_verified"]) == (True, False)
            assert ann.email not in str(found)
