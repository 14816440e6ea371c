"""Logins and what ends them."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from referral.adapters.postgres.database import PostgresDatabase
from tests.support.api_client import API, PASSWORD, Member, block_account, join, log_in
from tests.support.fakes.ports import FakeClock

NEW_PASSWORD = "staple battery horse"


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Trade a refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await client.post(f"{API}/auth/token", data=form)


async def log_in_for_refresh_token(ann: Member) -> str:
    """Log in, and return the refresh token."""
    token: str = (await log_in(ann.client, ann.email)).json()["refresh_token"]
    return token


async def test_a_refresh_token_is_opaque_random_and_stored_as_a_digest(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """The table holds the SHA-256 of 256 random bits, and the token tells nothing."""
    token = await log_in_for_refresh_token(await join(client))
    assert len(token) == 43
    digest = hashlib.sha256(token.encode()).digest()
    async with database.read() as records:
        query = text("SELECT count(*) FROM refresh_tokens WHERE digest = :digest")
        assert (await records.session.execute(query, {"digest": digest})).scalar_one() == 1


async def test_a_stolen_refresh_token_ends_the_family_and_is_logged(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Played again within 10 s it gives another pair, later it ends all that came of the login."""
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


async def test_a_session_ends_30_days_after_the_login(
    client: httpx.AsyncClient, clock: FakeClock
) -> None:
    """Rotation does not make a session live longer."""
    token = await log_in_for_refresh_token(await join(client))
    for _ in range(2):
        clock.advance(days=14)
        token = (await refresh(client, token)).json()["refresh_token"]
    clock.advance(days=2, seconds=1)
    assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def revoke(ann: Member, token: str) -> None:
    """Log out."""
    answer = await ann.client.post(f"{API}/auth/revoke", data={"token": token})
    assert (answer.status_code, answer.content) == (200, b"")


async def change_password(ann: Member, _: str) -> None:
    """Change the password."""
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert (await ann.request("PUT", "/me/password", json=body)).status_code == 204


async def erase(ann: Member, _: str) -> None:
    """Leave."""
    answer = await ann.request("DELETE", "/me", json={"password": PASSWORD})
    assert answer.status_code == 204


ENDINGS: list[Callable[[Member, str], Awaitable[None]]] = [revoke, change_password, erase]


@pytest.mark.parametrize("end", ENDINGS)
async def test_refresh_tokens_end_at_once(
    client: httpx.AsyncClient, end: Callable[[Member, str], Awaitable[None]]
) -> None:
    """Logging out, a new password and leaving end the refresh tokens of the login."""
    ann = await join(client)
    token = await log_in_for_refresh_token(ann)
    await end(ann, token)
    assert (await refresh(client, token)).json()["error"] == "invalid_grant"


async def test_a_blocked_account_is_out_at_once_and_cannot_get_in(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """Blocking ends the sessions, and the right password is answered like a wrong one."""
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


async def test_an_access_token_revokes_its_session(client: httpx.AsyncClient) -> None:
    """Either token of a pair logs out, and a token that is none does no harm."""
    ann = await join(client)
    pair = (await log_in(client, ann.email)).json()
    await revoke(ann, "no token at all")
    assert (await refresh(client, pair["refresh_token"])).status_code == 200
    await revoke(ann, pair["access_token"])
    assert (await refresh(client, pair["refresh_token"])).status_code == 400


async def test_a_new_password_leaves_the_session_that_changed_it(
    client: httpx.AsyncClient,
) -> None:
    """The others end; the new password logs in and the old one does not."""
    ann = await join(client)
    other = await log_in_for_refresh_token(ann)
    here = (await log_in(client, ann.email)).json()
    headers = {"Authorization": f"Bearer {here['access_token']}"}
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    changed = await client.put(f"{API}/me/password", json=body, headers=headers)
    assert changed.status_code == 204
    assert (await refresh(client, here["refresh_token"])).status_code == 200
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
async def test_a_bad_change_of_password_changes_nothing(
    client: httpx.AsyncClient, current: str, new: str, slug: str, pointer: str | None
) -> None:
    """A wrong or weak password is 422, and sessions go on."""
    ann = await join(client)
    token = await log_in_for_refresh_token(ann)
    body = {"current_password": current, "new_password": new}
    refused = await ann.request("PUT", "/me/password", json=body)
    assert refused.status_code == 422
    assert refused.json()["type"].endswith(f"/problems/{slug}")
    assert [fault["pointer"] for fault in refused.json().get("errors", [])] == (
        [pointer] if pointer else []
    )
    assert (await refresh(client, token)).status_code == 200


async def test_a_login_that_a_new_password_overtakes_is_refused(
    client: httpx.AsyncClient,
) -> None:
    """However many log in with the old password meanwhile, none is left in."""
    ann = await join(client)
    logins = [log_in(client, ann.email) for _ in range(10)]
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    *answers, changed = await asyncio.gather(*logins, ann.request("PUT", "/me/password", json=body))
    assert changed.status_code == 204
    tokens = [answer.json()["refresh_token"] for answer in answers if answer.status_code == 200]
    assert [(await refresh(client, token)).status_code for token in tokens] == [400] * len(tokens)


@pytest.mark.parametrize(
    ("body", "kind", "error"),
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
async def test_the_token_endpoint_refuses_in_the_form_of_the_rfc(
    client: httpx.AsyncClient, body: bytes, kind: str | None, error: str
) -> None:
    """RFC 6749, 5.2: JSON bodies, repeated parameters and unknown grants."""
    headers = {"Content-Type": kind or "application/x-www-form-urlencoded"}
    refused = await client.post(f"{API}/auth/token", content=body, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"] == error
    assert refused.headers["Cache-Control"] == "no-store"
