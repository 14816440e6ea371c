"""The ports `LoginSessionRepository` and `AuthorizationCodeRepository`."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.authorization_codes import AuthorizationCode, AuthorizationRequest
from referral.core.entities.login_sessions import LoginSession
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, make_session, make_user, store_user

SECOND = timedelta(seconds=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def make_login_session(user_id: UUID, **changed: Any) -> LoginSession:
    """Return a new login session that is valid at `NOW` and for an hour."""
    digest = ID_GENERATOR.new().bytes * 2
    return replace(LoginSession(digest, user_id, NOW, NOW + HOUR), **changed)


def make_code(user_id: UUID, **changed: Any) -> AuthorizationCode:
    """Return a new code that is valid at `NOW` and for an hour."""
    code = AuthorizationCode(
        digest=ID_GENERATOR.new().bytes * 2,
        user_id=user_id,
        client_id=ID_GENERATOR.new(),
        redirect_uri="https://app.example.com/callback",
        code_challenge="a challenge",
        scope="account",
        expires_at=NOW + HOUR,
    )
    return replace(code, **changed)


def request_of(code: AuthorizationCode, **changed: Any) -> AuthorizationRequest:
    """Return the request that a code was issued for."""
    request = AuthorizationRequest(code.client_id, code.redirect_uri, code.code_challenge)
    return replace(request, **changed)


async def add(store: Database, *rows: LoginSession | AuthorizationCode) -> None:
    """Store login sessions and codes."""
    async with store.begin() as repositories:
        for row in rows:
            if isinstance(row, LoginSession):
                await repositories.login_sessions.add(row)
            else:
                await repositories.authorization_codes.add(row)


async def redeem(
    store: Database,
    code: AuthorizationCode,
    request: AuthorizationRequest | None = None,
    now: datetime = NOW,
) -> UUID | None:
    """Redeem a code and store its session; return the session's id, or None if it is refused."""
    session = make_session(make_user(id=code.user_id))
    async with store.begin() as repositories:
        if not await repositories.authorization_codes.redeem(
            code.digest, request or request_of(code), session.id, now
        ):
            return None
        await repositories.sessions.add(session)
    return session.id


async def find_code(store: Database, code: AuthorizationCode) -> AuthorizationCode | None:
    """Return the stored code."""
    async with store.read() as repositories:
        return await repositories.authorization_codes.find(code.digest)


async def test_login_session_is_found_until_it_expires(store: Database) -> None:
    """By its own digest."""
    ann = await store_user(store)
    first = make_login_session(ann.id)
    second = make_login_session(ann.id, created_at=NOW + SECOND)
    await add(store, second, first)
    async with store.read() as repositories:
        login_sessions = repositories.login_sessions
        assert await login_sessions.find(first.digest, NOW + HOUR - SECOND) == first
        assert await login_sessions.find(first.digest, NOW + HOUR) is None
        assert await login_sessions.find(ID_GENERATOR.new().bytes * 2, NOW) is None
        assert await login_sessions.list_all(ann.id) == [first, second]
        assert await login_sessions.list_all(ID_GENERATOR.new()) == []


async def test_login_session_ends(store: Database) -> None:
    """Ending is idempotent, and others stay."""
    ann = await store_user(store)
    first, second = make_login_session(ann.id), make_login_session(ann.id)
    await add(store, first, second)
    for user_id in (ann.id, None):
        async with store.begin() as repositories:
            assert await repositories.login_sessions.end(first.digest) == user_id
    async with store.read() as repositories:
        assert await repositories.login_sessions.list_all(ann.id) == [second]


async def test_expired_rows_are_pruned(store: Database) -> None:
    """The limit is inclusive; a used code stays as long as its session."""
    ann = await store_user(store)
    old = make_login_session(ann.id, expires_at=LONG_AGO)
    kept = make_login_session(ann.id, expires_at=LONG_AGO + SECOND)
    unused, used = make_code(ann.id, expires_at=LONG_AGO), make_code(ann.id, expires_at=LONG_AGO)
    fresh = make_code(ann.id, expires_at=LONG_AGO + SECOND)
    await add(store, old, kept, unused, used, fresh)
    session_id = await redeem(store, used, now=LONG_AGO - SECOND)
    async with store.begin() as repositories:
        assert not await repositories.login_sessions.prune(LONG_AGO)
        assert not await repositories.authorization_codes.prune(LONG_AGO)
        assert await repositories.login_sessions.list_all(ann.id) == [kept]
    assert await find_code(store, unused) is None
    assert await find_code(store, fresh) == fresh
    assert await find_code(store, used) == replace(used, session_id=session_id)
    async with store.begin() as repositories:
        await repositories.sessions.revoke(session_id or ann.id)
    assert await find_code(store, used) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": UUID(int=1)},
        {"redirect_uri": "https://app.example.com/callback/"},
        {"code_challenge": "A challenge"},
    ],
)
async def test_code_is_redeemed_by_its_own_request(
    store: Database, changed: dict[str, Any]
) -> None:
    """Every part of the request must be that of the code."""
    code = make_code((await store_user(store)).id)
    await add(store, code)
    assert await redeem(store, code, request_of(code, **changed)) is None
    assert await find_code(store, code) == code
    session_id = await redeem(store, code)
    assert session_id is not None
    assert await find_code(store, code) == replace(code, session_id=session_id)


async def test_code_is_redeemed_until_it_expires(store: Database) -> None:
    """Not at its expiry, and never if it is unknown."""
    code = make_code((await store_user(store)).id)
    await add(store, code)
    assert await redeem(store, code, now=NOW + HOUR) is None
    assert await redeem(store, make_code(code.user_id)) is None
    assert await redeem(store, code, now=NOW + HOUR - SECOND) is not None


async def test_code_is_redeemed_once(store: Database) -> None:
    """One of several concurrent uses wins, and the code names its session."""
    code = make_code((await store_user(store)).id)
    await add(store, code)
    results = await asyncio.gather(*(redeem(store, code) for _ in range(8)))
    [session_id] = [result for result in results if result is not None]
    assert await find_code(store, code) == replace(code, session_id=session_id)


async def test_rows_need_an_account(store: Database) -> None:
    """PostgreSQL refuses both without one."""
    for row in (make_login_session(ID_GENERATOR.new()), make_code(ID_GENERATOR.new())):
        with pytest.raises(IntegrityConstraintViolationError):
            await add(store, row)


async def test_revoking_all_sessions_ends_login_sessions_and_codes(store: Database) -> None:
    """Also where one session is kept, with its used code; other users are not affected."""
    ann, bob = await store_user(store), await store_user(store)
    kept = make_code(ann.id)
    own = (make_login_session(ann.id), make_code(ann.id))
    others = (make_login_session(bob.id), make_code(bob.id))
    await add(store, kept, *own, *others)
    session_id = await redeem(store, kept)
    async with store.begin() as repositories:
        await repositories.users.lock(ann.id)
        await repositories.sessions.revoke_all(ann.id, except_id=session_id)
    assert await find_code(store, kept) == replace(kept, session_id=session_id)
    assert await find_code(store, own[1]) is None
    assert await find_code(store, others[1]) == others[1]
    async with store.read() as repositories:
        assert await repositories.login_sessions.list_all(ann.id) == []
        assert await repositories.login_sessions.list_all(bob.id) == [others[0]]
