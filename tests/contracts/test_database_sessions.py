"""The port `SessionRepository`."""

import asyncio
from dataclasses import replace

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.sessions import RefreshToken, Session
from referral.core.ports.repositories import Database, ReadModel
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
    """A session of a new user."""
    return await store_session(store)


@pytest.fixture
async def token(store: Database, session: Session) -> RefreshToken:
    """The first refresh token of the session."""
    return await store_token(store, session)


async def store_session(store: Database) -> Session:
    """Store a session of a new user."""
    session = make_session(await store_user(store))
    async with store.begin() as repositories:
        await repositories.sessions.add(session)
    return session


async def store_token(store: Database, session: Session) -> RefreshToken:
    """Store another refresh token of a session."""
    token = make_refresh_token(session.id)
    async with store.begin() as repositories:
        await repositories.sessions.add_token(token)
    return token


async def find_stored(store: Database, token: RefreshToken) -> tuple[Session, RefreshToken] | None:
    """Return the stored session and refresh token."""
    async with store.begin() as repositories:
        return await repositories.sessions.lock_by_token(token.digest)


async def test_refresh_token_finds_its_session(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Each of several tokens finds the session and itself, as stored."""
    second = await store_token(store, session)
    assert await find_stored(store, token) == (session, token)
    assert await find_stored(store, second) == (session, second)


async def test_unknown_refresh_token_finds_nothing(store: Database) -> None:
    """A digest that was never stored finds nothing."""
    assert await find_stored(store, make_refresh_token(ID_GENERATOR.new())) is None


async def test_time_of_use_is_stored(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """For that token alone."""
    second = await store_token(store, session)
    async with store.begin() as repositories:
        assert await repositories.sessions.mark_used(token, NOW)
    assert await find_stored(store, token) == (session, replace(token, used_at=NOW))
    assert await find_stored(store, second) == (session, second)


async def test_ending_a_session_deletes_its_tokens(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Tokens of other sessions stay; ending is idempotent."""
    second = await store_token(store, session)
    other = await store_session(store)
    other_token = await store_token(store, other)
    for _ in range(2):
        async with store.begin() as repositories:
            await repositories.sessions.revoke(session.id)
    assert await find_stored(store, token) is None
    assert await find_stored(store, second) is None
    assert await find_stored(store, other_token) == (other, other_token)


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

    async def use() -> bool:
        async with store.begin() as repositories:
            locked = await repositories.sessions.lock_by_token(token.digest)
            assert locked is not None
            await repositories.sessions.mark_used(token, NOW)
            return locked[1].used_at is None

    assert sum(await asyncio.gather(*(use() for _ in range(10)))) == 1


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
    assert await find_stored(store, heir) == (session, replace(heir, used_at=NOW))
    assert await find_stored(store, other) == (session, other)
    assert await find_stored(store, token) == (session, replace(token, heir=heir.digest))


async def test_concurrent_successors(
    store: Database, session: Session, token: RefreshToken
) -> None:
    """Of ten concurrent successors of a token, one wins; the session is locked meanwhile."""
    heirs = [replace(make_refresh_token(session.id), parent=token.digest) for _ in range(10)]
    async with store.begin() as repositories:
        for heir in heirs:
            await repositories.sessions.add_token(heir)

    async def use(heir: RefreshToken) -> bool:
        async with store.begin() as repositories:
            locked = await repositories.sessions.lock_by_token(heir.digest)
            assert locked is not None
            return await repositories.sessions.mark_used(locked[1], NOW)

    assert sum(await asyncio.gather(*(use(heir) for heir in heirs))) == 1


async def test_all_sessions_of_a_user_end(store: Database) -> None:
    """Except the given one, and those of other users."""
    ann, bob = await store_user(store), await store_user(store)
    kept_session, ended_session, other = make_session(ann), make_session(ann), make_session(bob)
    async with store.begin() as repositories:
        for session in (kept_session, ended_session, other):
            await repositories.sessions.add(session)
        token = make_refresh_token(ended_session.id)
        await repositories.sessions.add_token(token)
        assert await repositories.sessions.find_by_token(token.digest) == (ended_session, token)
        await repositories.sessions.revoke_all(ann.id, except_id=kept_session.id)
        assert await repositories.sessions.list_all(ann.id) == [kept_session]
        assert await repositories.sessions.find_by_token(token.digest) is None
        await repositories.sessions.revoke_all(ann.id)
        assert await repositories.sessions.find(kept_session.id) is None
        assert await repositories.sessions.find(other.id) == other


async def test_ended_session_may_not_write(store: Database, read_model: ReadModel) -> None:
    """Nor may one of a deleted user; the write itself checks for a block."""
    ann = await store_user(store)
    session = make_session(ann)
    assert not await read_model.has_session_or_is_blocked(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.sessions.add(session)
    assert await read_model.has_session_or_is_blocked(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.sessions.revoke_all(ann.id)
    assert not await read_model.has_session_or_is_blocked(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.users.save(replace(ann, blocked_at=NOW))
    assert await read_model.has_session_or_is_blocked(ann.id, session.id)
