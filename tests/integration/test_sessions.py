"""Sessions, refresh tokens and what ends them."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
from structlog.testing import capture_logs

from referral.adapters.postgres.database import PostgresDatabase
from tests.support.api_client import (
    API,
    NEW_PASSWORD,
    PASSWORD,
    Member,
    block_account,
    join,
    log_in,
)
from tests.support.fakes.system import FakeClock


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Use a refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post(f"{API}/auth/token", data=form)


async def log_in_for_refresh_token(ann: Member) -> str:
    """Log in; return the refresh token."""
    token: str = (await log_in(ann.client, ann.email)).json()["refresh_token"]
    return token


async def test_refresh_token_is_random_and_stored_as_a_digest(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The token is 256 random bits, and the table has its SHA-256."""
    token = await log_in_for_refresh_token(await join(client))
    assert len(token) == 43
    digest = hashlib.sha256(token.encode()).digest()
    async with database.read() as repositories:
        query = "SELECT 1 FROM refresh_tokens WHERE digest = $1"
        assert len(await repositories.connection.fetch_sql(query, digest)) == 1


async def test_reused_refresh_token_ends_the_session_and_is_logged(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Reuse within 10 s gives another pair; later it ends the session."""
    first = await log_in_for_refresh_token(await join(client))
    second = (await refresh(client, first)).json()["refresh_token"]
    assert (await refresh(client, first)).status_code == 200
    clock.advance(seconds=11)
    with capture_logs() as logs:
        stolen = await refresh(client, first)
    assert stolen.json()["error"] == "invalid_grant"
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "refresh token reused"
    ]
    assert (await refresh(client, second)).json()["error"] == "invalid_grant"


async def test_session_ends_30_days_after_the_login(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Rotation does not extend a session."""
    token = await log_in_for_refresh_token(await join(client))
    for _ in range(2):
        clock.advance(days=14)
        token = (await refresh(client, token)).json()["refresh_token"]
    clock.advance(days=2, seconds=1)
    assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def revoke(ann: Member, token: str) -> None:
    """Revoke a token."""
    response = await ann.client.post(f"{API}/auth/revoke", data={"token": token})
    assert (response.status_code, response.content) == (200, b"")


async def change_password(ann: Member, _: str) -> None:
    """Change the password."""
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert (await ann.request("PUT", "/me/password", json=body)).status_code == 204


async def erase(ann: Member, _: str) -> None:
    """Delete the account."""
    response = await ann.request("DELETE", "/me", json={"password": PASSWORD})
    assert response.status_code == 204


ENDINGS: list[Callable[[Member, str], Awaitable[None]]] = [revoke, change_password, erase]


@pytest.mark.parametrize("end", ENDINGS)
async def test_refresh_tokens_are_revoked_at_once(
    client: httpx.AsyncClient, end: Callable[[Member, str], Awaitable[None]]
) -> None:
    """Logout, a new password and erasure revoke the refresh tokens."""
    ann = await join(client)
    token = await log_in_for_refresh_token(ann)
    await end(ann, token)
    assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def test_block_ends_sessions_and_prevents_logins(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The right password gets the response of a wrong one."""
    ann = await join(client)
    token = await log_in_for_refresh_token(ann)
    await block_account(database, ann.email)
    assert (await refresh(client, token)).json()["error"] == "invalid_grant"
    wrong = await log_in(client, ann.email, "not the password")
    right = await log_in(client, ann.email)
    assert (right.status_code, right.content) == (wrong.status_code, wrong.content)
    assert right.status_code == 400
    await block_account(database, ann.email, undo=True)
    assert (await log_in(client, ann.email)).status_code == 200


async def test_access_token_revokes_its_session(client: httpx.AsyncClient) -> None:
    """Either token of a pair logs out; an unknown token has no effect."""
    ann = await join(client)
    pair = (await log_in(client, ann.email)).json()
    await revoke(ann, "no token at all")
    assert (await refresh(client, pair["refresh_token"])).status_code == 200
    await revoke(ann, pair["access_token"])
    assert (await refresh(client, pair["refresh_token"])).status_code == 400


async def test_password_change_keeps_the_current_session(
    client: httpx.AsyncClient,
) -> None:
    """Other sessions end, and the old password is invalid."""
    ann = await join(client)
    other = await log_in_for_refresh_token(ann)
    current = (await log_in(client, ann.email)).json()
    headers = {"Authorization": f"Bearer {current['access_token']}"}
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    changed = await client.put(f"{API}/me/password", json=body, headers=headers)
    assert changed.status_code == 204
    assert (await refresh(client, current["refresh_token"])).status_code == 200
    assert (await refresh(client, other)).status_code == 400
    assert (await log_in(client, ann.email)).status_code == 400
    assert (await log_in(client, ann.email, NEW_PASSWORD)).status_code == 200


@pytest.mark.parametrize(
    ("current", "new", "slug", "pointer"),
    [
        ("not the password", NEW_PASSWORD, "wrong-password", "/current_password"),
        (PASSWORD, "short", "weak-password", "/new_password"),
        (PASSWORD, "password123", "weak-password", "/new_password"),
        (PASSWORD, "x" * 1025, "weak-password", "/new_password"),
    ],
)
async def test_invalid_password_change_has_no_effect(
    client: httpx.AsyncClient, current: str, new: str, slug: str, pointer: str | None
) -> None:
    """A wrong or weak password is 422, and the session continues."""
    ann = await join(client)
    token = await log_in_for_refresh_token(ann)
    body = {"current_password": current, "new_password": new}
    response = await ann.request("PUT", "/me/password", json=body)
    assert response.status_code == 422
    assert response.json()["type"].endswith(f"/problems/{slug}")
    assert [error["pointer"] for error in response.json().get("errors", [])] == (
        [pointer] if pointer else []
    )
    assert (await refresh(client, token)).status_code == 200


async def test_login_concurrent_with_a_password_change_is_rejected(
    client: httpx.AsyncClient,
) -> None:
    """No session of the old password survives a concurrent change."""
    ann = await join(client)
    logins = [log_in(client, ann.email) for _ in range(10)]
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    *responses, changed = await asyncio.gather(
        *logins, ann.request("PUT", "/me/password", json=body)
    )
    assert changed.status_code == 204
    tokens = [
        response.json()["refresh_token"] for response in responses if response.status_code == 200
    ]
    assert [(await refresh(client, token)).status_code for token in tokens] == [400] * len(tokens)


@pytest.mark.parametrize(
    ("body", "media_type", "error"),
    [
        (b'{"grant_type": "password"}', "application/json", "invalid_request"),
        (b"grant_type=password&grant_type=password", None, "invalid_request"),
        (b"grant_type=password&username=a&password=b&username=c", None, "invalid_request"),
        (b"grant_type=implicit", None, "unsupported_grant_type"),
        (b"grant_type=", None, "invalid_request"),
        (b"username=a&password=b", None, "invalid_request"),
        (b"grant_type=password&username=a", None, "invalid_request"),
        (b"grant_type=password&username=%ff&password=b", None, "invalid_request"),
        (b"\xff\xfe", None, "invalid_request"),
        (b"grant_type=password&username=a&password=b&scope=admin", None, "invalid_scope"),
        (b"grant_type=refresh_token&refresh_token=unknown", None, "invalid_grant"),
        (b"grant_type=password&username=nobody&password=b", None, "invalid_grant"),
    ],
)
async def test_token_endpoint_errors_follow_rfc_6749(
    client: httpx.AsyncClient, body: bytes, media_type: str | None, error: str
) -> None:
    """RFC 6749, 5.2: JSON bodies, repeated parameters and unknown grants."""
    headers = {"Content-Type": media_type or "application/x-www-form-urlencoded"}
    response = await client.post(f"{API}/auth/token", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"] == error
    assert response.headers["Cache-Control"] == "no-store"
