"""Logins: the port `Sessions`."""

import asyncio
from dataclasses import replace

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.sessions import RefreshToken, Session
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    ID_GENERATOR,
    NOW,
    make_refresh_token,
    make_session,
    make_user,
    store_user,
)


@pytest.fixture
async def session(store: Database) -> Session:
    """Someone's login."""
    return await store_session(store)


@pytest.fixture
async def token(store: Database, session: Session) -> RefreshToken:
    """The first refresh token of the login."""
    return await store_token(store, session)


async def store_session(store: Database) -> Session:
    """Make a login of someone new."""
    session = make_session(await store_user(store))
    async with store.begin() as repositories:
        await repositories.sessions.add(session)
    return session


async def store_token(store: Database, session: Session) -> RefreshToken:
    """Make another refresh token of a login."""
    token = make_refresh_token(session.id)
    async with store.begin() as repositories:
        await repositories.sessions.add_token(token)
    return token


async def found(store: Database, token: RefreshToken) -> tuple[Session, RefreshToken] | None:
    """Return what is stored about a refresh token."""
    async with store.begin() as repositories:
        return await repositories.sessions.lock_by_token(token.digest)


async def test_refresh_token_finds_its_session(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Each of several tokens finds the session and itself, as stored."""
    second = await store_token(store, session)
    assert await found(store, token) == (session, token)
    assert await found(store, second) == (session, second)


async def test_unknown_refresh_token_finds_nothing(store: Database) -> None:
    """A digest that was never stored finds nothing."""
    assert await found(store, make_refresh_token(ID_GENERATOR.new())) is None


async def test_time_of_use_is_stored(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """For that token alone."""
    second = await store_token(store, session)
    async with store.begin() as repositories:
        assert await repositories.sessions.mark_used(token, NOW)
    assert await found(store, token) == (session, replace(token, used_at=NOW))
    assert await found(store, second) == (session, second)


async def test_ending_a_session_deletes_its_tokens(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Tokens of other sessions stay; ending is idempotent."""
    second = await store_token(store, session)
    other = await store_session(store)
    kept = await store_token(store, other)
    for _ in range(2):
        async with store.begin() as repositories:
            await repositories.sessions.revoke(session.id)
    assert await found(store, token) is None
    assert await found(store, second) is None
    assert await found(store, kept) == (other, kept)


async def test_token_needs_a_session_and_session_needs_a_user(store: Database) -> None:
    """Tokens without a session and sessions without a user are rejected."""
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.sessions.add_token(make_refresh_token(ID_GENERATOR.new()))
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.sessions.add(make_session(make_user()))


async def test_refresh_token_is_unique(store: Database, token: RefreshToken) -> None:
    """The same digest is rejected the second time."""
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.sessions.add_token(token)


async def test_lock_shows_the_previous_change(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Of ten concurrent uses of a token, one finds it unused."""
    assert token.session_id == session.id

    async def play() -> bool:
        async with store.begin() as repositories:
            held = await repositories.sessions.lock_by_token(token.digest)
            assert held is not None
            await repositories.sessions.mark_used(token, NOW)
            return held[1].used_at is None

    assert sum(await asyncio.gather(*(play() for _ in range(10)))) == 1


async def test_first_used_of_two_successors_wins(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """The use of the second is not stored, and the parent names the first."""
    heir, other = [replace(make_refresh_token(session.id), parent=token.digest) for _ in range(2)]
    async with store.begin() as repositories:
        await repositories.sessions.add_token(heir)
        await repositories.sessions.add_token(other)
        assert await repositories.sessions.mark_used(heir, NOW) is True
        assert await repositories.sessions.mark_used(other, NOW) is False
    assert await found(store, heir) == (session, replace(heir, used_at=NOW))
    assert await found(store, other) == (session, other)
    assert await found(store, token) == (session, replace(token, heir=heir.digest))


async def test_concurrent_successors(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Of ten concurrent successors of a token, one wins; the session is locked meanwhile."""
    heirs = [replace(make_refresh_token(session.id), parent=token.digest) for _ in range(10)]
    async with store.begin() as repositories:
        for heir in heirs:
            await repositories.sessions.add_token(heir)

    async def play(heir: RefreshToken) -> bool:
        async with store.begin() as repositories:
            held = await repositories.sessions.lock_by_token(heir.digest)
            assert held is not None
            return await repositories.sessions.mark_used(held[1], NOW)

    assert sum(await asyncio.gather(*(play(heir) for heir in heirs))) == 1
