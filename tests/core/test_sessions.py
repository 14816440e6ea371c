"""Logging in and staying so."""

import asyncio

import pytest

from referral.core.errors import InvalidGrant
from referral.core.model import Scope, User
from referral.core.sessions import FIRST_PARTY, Tokens
from tests.core.world import ADDRESS, LIFETIME, PASSWORD, World, signed_in


@pytest.fixture
async def ann(world: World) -> User:
    """Someone with an account."""
    return await world.join("Ann@example.com")


@pytest.fixture
async def first(world: World, ann: User) -> Tokens:
    """The tokens of Ann's login."""
    return await world.log_in(ann.email, PASSWORD, ADDRESS)


async def test_logging_in_gives_tokens_of_the_user(world: World, ann: User) -> None:
    """The access token speaks for the user, whatever the case of the address."""
    tokens = await world.log_in("aNN@EXAMPLE.com", PASSWORD, ADDRESS)
    caller = world.access_tokens.verify(tokens.access_token).caller
    assert caller == signed_in(ann, caller.session_id)
    assert (tokens.expires_in, tokens.scope) == (world.access_tokens.lifetime, Scope.ACCOUNT)
    assert signed_in(ann).client_id == FIRST_PARTY
    assert (await world.refresh(tokens.refresh_token)).scope == Scope.ACCOUNT


async def test_the_refresh_token_is_not_stored(world: World, first: Tokens) -> None:
    """It is found by its SHA-256, and not by itself."""
    async with world.database.read() as records:
        assert await records.sessions.lock(first.refresh_token.encode()) is None
        digest = world.refresh.secrets.digest(first.refresh_token)
        assert await records.sessions.lock(digest) is not None


@pytest.mark.parametrize("username", ["Ann@example.com", "nobody@example.com", "no address", ""])
async def test_a_failed_login_says_nothing(world: World, ann: User, username: str) -> None:
    """A wrong password and an unknown address get one answer, at the cost of one hash."""
    with pytest.raises(InvalidGrant) as refused:
        await world.log_in(username, "another one entirely", ADDRESS)
    assert refused.value.detail == "The e-mail address or the password is not right."
    known = username == ann.email
    assert world.passwords.compared == [ann.password_hash if known else None]


async def test_a_giant_password_costs_no_hash(world: World, ann: User) -> None:
    """What no account can have as its password is refused like a wrong one, unhashed."""
    with pytest.raises(InvalidGrant) as refused:
        await world.log_in(ann.email, "x" * 1025, ADDRESS)
    assert refused.value.detail == "The e-mail address or the password is not right."
    assert world.passwords.compared == []


async def test_a_password_is_the_same_on_every_keyboard(world: World) -> None:
    """A password set in one Unicode form is good in both."""
    await world.join("zoe@example.com", password="cafe\u0301 au lait")  # noqa: S106
    for password in ("caf\u00e9 au lait", "cafe\u0301 au lait"):
        tokens = await world.log_in("zoe@example.com", password, ADDRESS)
        assert world.access_tokens.verify(tokens.access_token)


async def test_a_refresh_gives_the_next_pair(world: World, ann: User, first: Tokens) -> None:
    """Both tokens are new, the user and the scope stay."""
    second = await world.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    caller = world.access_tokens.verify(second.access_token).caller
    assert caller == signed_in(ann, caller.session_id)
    assert await world.refresh(second.refresh_token)


@pytest.mark.parametrize("token", ["", "unknown", "access-1"])
async def test_what_is_no_refresh_token_is_refused(world: World, first: Tokens, token: str) -> None:
    """Unknown tokens, access tokens among them, refresh nothing and end nothing."""
    with pytest.raises(InvalidGrant):
        await world.refresh(token)
    assert await world.refresh(first.refresh_token)


async def test_an_answer_lost_on_the_way(world: World, first: Tokens) -> None:
    """Played again within ten seconds of its first use, a token gives another pair."""
    second = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=9)
    again = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=1)
    third = await world.refresh(first.refresh_token)
    assert len({tokens.refresh_token for tokens in (first, second, again, third)}) == 4
    for tokens in (second, again, third):
        assert await world.refresh(tokens.refresh_token)


async def test_the_grace_begins_with_the_first_use(world: World, first: Tokens) -> None:
    """Playing a token again does not make it good for longer."""
    await world.refresh(first.refresh_token)
    world.clock.advance(seconds=9)
    await world.refresh(first.refresh_token)
    world.clock.advance(seconds=2)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)


async def test_a_stolen_token_ends_the_session(world: World, first: Tokens) -> None:
    """Played again after ten seconds, a token ends its session, and that is committed."""
    second = await world.refresh(first.refresh_token)
    third = await world.refresh(second.refresh_token)
    world.clock.advance(seconds=10.000001)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)
    for tokens in (first, second, third):
        with pytest.raises(InvalidGrant):
            await world.refresh(tokens.refresh_token)


async def test_a_stolen_token_leaves_other_sessions(world: World, ann: User) -> None:
    """What ends is one login, not those on other machines."""
    stolen = await world.log_in(ann.email, PASSWORD, ADDRESS)
    other = await world.log_in(ann.email, PASSWORD, ADDRESS)
    await world.refresh(stolen.refresh_token)
    world.clock.advance(seconds=11)
    with pytest.raises(InvalidGrant):
        await world.refresh(stolen.refresh_token)
    assert await world.refresh(other.refresh_token)


async def test_a_refresh_does_not_prolong_the_session(world: World, first: Tokens) -> None:
    """Thirty days after the login it is over, however often it was refreshed."""
    world.clock.advance(seconds=LIFETIME.total_seconds() - 1)
    second = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=1)
    with pytest.raises(InvalidGrant):
        await world.refresh(second.refresh_token)


async def test_refreshing_at_once_leaves_one_lineage(world: World, first: Tokens) -> None:
    """Twenty who refresh with one token all get a pair, and all of one session."""
    playing = [world.refresh(first.refresh_token) for _ in range(20)]
    pairs = await asyncio.gather(*playing)
    assert len({pair.refresh_token for pair in pairs}) == 20
    world.clock.advance(seconds=11)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)
    for pair in pairs:
        with pytest.raises(InvalidGrant):
            await world.refresh(pair.refresh_token)
