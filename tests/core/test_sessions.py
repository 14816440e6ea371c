"""Logging in and staying so."""

import asyncio
from dataclasses import replace

import pytest

from referral.core.entities.clients import Scope
from referral.core.entities.users import User
from referral.core.errors import InvalidGrant, Unavailable
from referral.core.use_cases.clients import ClientCredentials, CreateClient, IntrospectToken
from referral.core.use_cases.sessions import FIRST_PARTY_CLIENT_ID, TokenPair
from tests.core.service import CLIENT_IP, PASSWORD, SESSION_LIFETIME, InMemoryService, user_caller
from tests.support.fakes.ports import FakeTokenGenerator


@pytest.fixture
async def ann(world: InMemoryService) -> User:
    """Someone with an account."""
    return await world.create_account("Ann@example.com")


@pytest.fixture
async def first(world: InMemoryService, ann: User) -> TokenPair:
    """The tokens of Ann's login."""
    return await world.log_in(ann.email, PASSWORD, CLIENT_IP)


async def test_logging_in_gives_tokens_of_the_user(world: InMemoryService, ann: User) -> None:
    """The access token speaks for the user, whatever the case of the address."""
    tokens = await world.log_in("aNN@EXAMPLE.com", PASSWORD, CLIENT_IP)
    caller = world.access_tokens.verify(tokens.access_token).caller
    assert caller == user_caller(ann, caller.session_id)
    assert (tokens.expires_in, tokens.scope) == (
        world.access_tokens.lifetime_seconds,
        Scope.ACCOUNT,
    )
    assert user_caller(ann).client_id == FIRST_PARTY_CLIENT_ID
    assert (await world.refresh(tokens.refresh_token)).scope == Scope.ACCOUNT


async def test_the_refresh_token_is_not_stored(world: InMemoryService, first: TokenPair) -> None:
    """It is found by its SHA-256, and not by itself."""
    async with world.database.read() as records:
        assert await records.sessions.lock_by_token(first.refresh_token.encode()) is None
        digest = world.refresh.token_generator.digest(first.refresh_token)
        assert await records.sessions.lock_by_token(digest) is not None


@pytest.mark.parametrize("username", ["Ann@example.com", "nobody@example.com", "no address", ""])
async def test_a_failed_login_says_nothing(
    world: InMemoryService, ann: User, username: str
) -> None:
    """A wrong password and an unknown address get one answer, at the cost of one hash."""
    with pytest.raises(InvalidGrant) as refused:
        await world.log_in(username, "another one entirely", CLIENT_IP)
    assert refused.value.detail == "The e-mail address or the password is not right."
    known = username == ann.email
    assert world.password_hasher.verified_hashes == [ann.password_hash if known else None]


async def test_a_giant_password_costs_no_hash(world: InMemoryService, ann: User) -> None:
    """What no account can have as its password is refused like a wrong one, unhashed."""
    with pytest.raises(InvalidGrant) as refused:
        await world.log_in(ann.email, "x" * 1025, CLIENT_IP)
    assert refused.value.detail == "The e-mail address or the password is not right."
    assert world.password_hasher.verified_hashes == []


async def test_a_password_is_the_same_on_every_keyboard(world: InMemoryService) -> None:
    """A password set in one Unicode form is good in both."""
    await world.create_account("zoe@example.com", password="cafe\u0301 au lait")  # noqa: S106
    for password in ("caf\u00e9 au lait", "cafe\u0301 au lait"):
        tokens = await world.log_in("zoe@example.com", password, CLIENT_IP)
        assert world.access_tokens.verify(tokens.access_token)


async def test_a_refresh_gives_the_next_pair(
    world: InMemoryService, ann: User, first: TokenPair
) -> None:
    """Both tokens are new, the user and the scope stay."""
    second = await world.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    caller = world.access_tokens.verify(second.access_token).caller
    assert caller == user_caller(ann, caller.session_id)
    assert await world.refresh(second.refresh_token)


@pytest.mark.parametrize("token", ["", "unknown", "access-1"])
async def test_what_is_no_refresh_token_is_refused(
    world: InMemoryService, first: TokenPair, token: str
) -> None:
    """Unknown tokens, access tokens among them, refresh nothing and end nothing."""
    with pytest.raises(InvalidGrant):
        await world.refresh(token)
    assert await world.refresh(first.refresh_token)


async def test_an_answer_lost_on_the_way(world: InMemoryService, first: TokenPair) -> None:
    """Played again within ten seconds of its first use, a token gives another pair."""
    second = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=9)
    again = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=1)
    third = await world.refresh(first.refresh_token)
    assert len({tokens.refresh_token for tokens in (first, second, again, third)}) == 4
    assert await world.refresh(again.refresh_token)


async def test_the_grace_begins_with_the_first_use(
    world: InMemoryService, first: TokenPair
) -> None:
    """Playing a token again does not make it good for longer."""
    await world.refresh(first.refresh_token)
    world.clock.advance(seconds=9)
    await world.refresh(first.refresh_token)
    world.clock.advance(seconds=2)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)


async def test_a_stolen_token_ends_the_session(world: InMemoryService, first: TokenPair) -> None:
    """Played again after ten seconds, a token ends its session, and that is committed."""
    second = await world.refresh(first.refresh_token)
    third = await world.refresh(second.refresh_token)
    world.clock.advance(seconds=10.000001)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)
    for tokens in (first, second, third):
        with pytest.raises(InvalidGrant):
            await world.refresh(tokens.refresh_token)


async def test_a_stolen_token_leaves_other_sessions(world: InMemoryService, ann: User) -> None:
    """What ends is one login, not those on other machines."""
    stolen = await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    other = await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    await world.refresh(stolen.refresh_token)
    world.clock.advance(seconds=11)
    with pytest.raises(InvalidGrant):
        await world.refresh(stolen.refresh_token)
    assert await world.refresh(other.refresh_token)


async def test_a_refresh_does_not_prolong_the_session(
    world: InMemoryService, first: TokenPair
) -> None:
    """Thirty days after the login it is over, however often it was refreshed."""
    world.clock.advance(seconds=SESSION_LIFETIME.total_seconds() - 1)
    second = await world.refresh(first.refresh_token)
    world.clock.advance(seconds=1)
    with pytest.raises(InvalidGrant):
        await world.refresh(second.refresh_token)


async def test_refreshing_at_once_leaves_one_lineage(
    world: InMemoryService, first: TokenPair
) -> None:
    """Twenty who refresh with one token all get a pair; the first pair used lives on, and playing
    another one is reuse.
    """
    playing = [world.refresh(first.refresh_token) for _ in range(20)]
    pairs = await asyncio.gather(*playing)
    assert len({pair.refresh_token for pair in pairs}) == 20
    heir, *others = pairs
    living = await world.refresh(heir.refresh_token)
    assert world.security_log.events == []
    with pytest.raises(InvalidGrant):
        await world.refresh(others[7].refresh_token)
    assert world.security_log.events == ["refresh token reused"]
    for tokens in (living, heir, first, *others):
        with pytest.raises(InvalidGrant):
            await world.refresh(tokens.refresh_token)


async def test_of_two_answers_the_second_may_live_on_as_well(
    world: InMemoryService, first: TokenPair
) -> None:
    """What counts is which is used first, not which was given first."""
    lost = await world.refresh(first.refresh_token)
    arrived = await world.refresh(first.refresh_token)
    latest = await world.refresh(arrived.refresh_token)
    assert await world.refresh(latest.refresh_token)
    with pytest.raises(InvalidGrant):
        await world.refresh(lost.refresh_token)


async def test_a_lost_answer_may_be_asked_for_again_at_every_step(
    world: InMemoryService, first: TokenPair
) -> None:
    """Whoever plays each token twice within the grace, and goes on with the last pair, stays."""
    tokens = first
    for _ in range(5):
        await world.refresh(tokens.refresh_token)
        tokens = await world.refresh(tokens.refresh_token)
        world.clock.advance(seconds=60)
    assert world.security_log.events == []


async def test_a_token_whose_heir_was_used_is_good_no_more(
    world: InMemoryService, first: TokenPair
) -> None:
    """The answer arrived: whoever plays the token then, within ten seconds too, has stolen it."""
    second = await world.refresh(first.refresh_token)
    third = await world.refresh(second.refresh_token)
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)
    with pytest.raises(InvalidGrant):
        await world.refresh(third.refresh_token)
    assert world.security_log.events == ["refresh token reused"]


async def test_a_token_of_the_release_before_has_no_parent_and_is_good(
    world: InMemoryService, first: TokenPair
) -> None:
    """Tokens that were stored without a lineage go on, and begin one."""
    second = await world.refresh(first.refresh_token)
    digest = world.refresh.token_generator.digest(second.refresh_token)
    async with world.database.begin() as records:
        tokens = records.tables.refresh_tokens
        tokens[digest] = replace(tokens[digest], parent=None)
    one = await world.refresh(second.refresh_token)
    other = await world.refresh(second.refresh_token)
    await world.refresh(one.refresh_token)
    with pytest.raises(InvalidGrant):
        await world.refresh(other.refresh_token)


async def test_a_session_that_is_over_was_not_stolen(
    world: InMemoryService, first: TokenPair
) -> None:
    """An old token after the end of its session is no reason to warn anybody."""
    await world.refresh(first.refresh_token)
    world.clock.advance(seconds=SESSION_LIFETIME.total_seconds())
    with pytest.raises(InvalidGrant):
        await world.refresh(first.refresh_token)
    assert world.security_log.events == []


async def test_a_token_that_cannot_live_on_is_not_active(
    world: InMemoryService, first: TokenPair
) -> None:
    """Introspection tells of two tokens that one was given for which of them is still good."""
    make = CreateClient(world.clock, world.database, world.id_generator, FakeTokenGenerator())
    shop, secret = await make("shop", [Scope.CODES_READ])
    introspect = IntrospectToken(
        world.access_tokens, world.clock, world.database, FakeTokenGenerator(), world.verification
    )

    async def is_active(tokens: TokenPair) -> bool:
        asking = ClientCredentials(str(shop.id), secret)
        return await introspect(asking, tokens.refresh_token) is not None

    lost, arrived = [await world.refresh(first.refresh_token) for _ in range(2)]
    assert [await is_active(tokens) for tokens in (first, lost, arrived)] == [False, True, True]
    latest = await world.refresh(arrived.refresh_token)
    assert [await is_active(tokens) for tokens in (lost, arrived, latest)] == [False, False, True]


async def stored_hash(world: InMemoryService, ann: User) -> str:
    """Return what is stored of someone's password."""
    async with world.database.read() as records:
        user = await records.users.find(ann.id)
    assert user is not None
    return user.password_hash


async def test_a_login_renews_an_outdated_hash(world: InMemoryService, ann: User) -> None:
    """Once; the password stays the same, and a failed login changes nothing."""
    world.password_hasher.outdated_hashes = {ann.password_hash}
    with pytest.raises(InvalidGrant):
        await world.log_in(ann.email, "another one entirely", CLIENT_IP)
    assert await stored_hash(world, ann) == ann.password_hash
    await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    renewed = await stored_hash(world, ann)
    assert renewed != ann.password_hash
    await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(world, ann) == renewed


async def test_logins_at_once_with_an_outdated_hash_all_succeed(
    world: InMemoryService, ann: User
) -> None:
    """Whoever finds the hash renewed by another looks again."""
    world.password_hasher.outdated_hashes = {ann.password_hash}
    logins = [world.log_in(ann.email, PASSWORD, CLIENT_IP) for _ in range(20)]
    assert len(await asyncio.gather(*logins)) == 20
    assert await stored_hash(world, ann) not in world.password_hasher.outdated_hashes


async def test_a_full_queue_renews_no_hash_and_refuses_no_login(
    world: InMemoryService, ann: User
) -> None:
    """The old hash is good for another time."""
    world.password_hasher.outdated_hashes = {ann.password_hash}
    world.password_hasher.error = Unavailable()
    assert await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(world, ann) == ann.password_hash


async def test_a_new_password_is_not_undone_by_a_login_with_the_old_one(
    world: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash is renewed only where the one that was compared with is still stored."""
    world.password_hasher.outdated_hashes = {ann.password_hash}
    changed = await world.password_hasher.hash("staple battery horse")

    async def change_meanwhile(_: str) -> str:
        async with world.database.begin() as records:
            await records.users.save(replace(ann, password_hash=changed))
        return "the old password, hashed anew"

    monkeypatch.setattr(world.password_hasher, "hash", change_meanwhile)
    with pytest.raises(InvalidGrant):
        await world.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(world, ann) == changed
