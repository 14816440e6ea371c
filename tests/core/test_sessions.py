"""Logins and refresh tokens."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Scope
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID, Session
from referral.core.entities.users import User
from referral.core.errors import InvalidGrant, TooManyRequests, Unavailable
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.clients import CreateClient, IntrospectToken
from tests.core.service import CLIENT_IP, PASSWORD, SESSION_LIFETIME, InMemoryService, user_caller


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("Ann@example.com")


@pytest.fixture
async def first(service: InMemoryService, ann: User) -> TokenPair:
    """The tokens of Ann's login."""
    return await service.log_in(ann.email, PASSWORD, CLIENT_IP)


async def test_login_issues_tokens_of_the_user(service: InMemoryService, ann: User) -> None:
    """The access token identifies the user, whatever the case of the e-mail address."""
    tokens = await service.log_in("aNN@EXAMPLE.com", PASSWORD, CLIENT_IP)
    caller = service.access_tokens.verify(tokens.access_token).caller
    assert caller == user_caller(ann, caller.session_id)
    assert (tokens.expires_in, tokens.scope) == (
        service.access_tokens.lifetime_seconds,
        Scope.ACCOUNT,
    )
    assert user_caller(ann).client_id == FIRST_PARTY_CLIENT_ID
    assert (await service.refresh(tokens.refresh_token)).scope == Scope.ACCOUNT


async def test_refresh_token_is_stored_as_its_digest(
    service: InMemoryService, first: TokenPair
) -> None:
    """It is found by its SHA-256 only."""
    async with service.database.read() as repositories:
        assert await repositories.sessions.lock_by_token(first.refresh_token.encode()) is None
        digest = service.refresh.token_generator.digest(first.refresh_token)
        assert await repositories.sessions.lock_by_token(digest) is not None


@pytest.mark.parametrize("username", ["Ann@example.com", "nobody@example.com", "no address", ""])
async def test_failed_login_reveals_nothing(
    service: InMemoryService, ann: User, username: str
) -> None:
    """A wrong password and an unknown address give the same error at the cost of one hash."""
    with pytest.raises(InvalidGrant) as raised:
        await service.log_in(username, "another one entirely", CLIENT_IP)
    assert raised.value.detail == "The e-mail address or the password is wrong."
    known = username == ann.email
    assert service.password_hasher.verified_hashes == [ann.password_hash if known else None]


async def test_overlong_password_is_rejected_without_hashing(
    service: InMemoryService, ann: User
) -> None:
    """The error is that of a wrong password."""
    with pytest.raises(InvalidGrant) as raised:
        await service.log_in(ann.email, "x" * 1025, CLIENT_IP)
    assert raised.value.detail == "The e-mail address or the password is wrong."
    assert service.password_hasher.verified_hashes == []


async def test_password_matches_in_every_unicode_form(service: InMemoryService) -> None:
    """A password set in one Unicode form is accepted in both."""
    await service.create_account("zoe@example.com", password="cafe\u0301 au lait")  # noqa: S106
    for password in ("caf\u00e9 au lait", "cafe\u0301 au lait"):
        tokens = await service.log_in("zoe@example.com", password, CLIENT_IP)
        assert service.access_tokens.verify(tokens.access_token)


async def test_refresh_issues_the_next_pair(
    service: InMemoryService, ann: User, first: TokenPair
) -> None:
    """Both tokens are new; user and scope stay."""
    second = await service.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    caller = service.access_tokens.verify(second.access_token).caller
    assert caller == user_caller(ann, caller.session_id)
    assert await service.refresh(second.refresh_token)


@pytest.mark.parametrize("token", ["", "unknown", "access-1"])
async def test_invalid_refresh_token_is_rejected(
    service: InMemoryService, first: TokenPair, token: str
) -> None:
    """Unknown tokens and access tokens refresh nothing and end nothing."""
    with pytest.raises(InvalidGrant) as raised:
        await service.refresh(token)
    assert raised.value.detail == (
        "The refresh token is unknown, expired or already used. Log in again."
    )
    assert await service.refresh(first.refresh_token)


async def test_refresh_can_be_repeated_within_the_grace_period(
    service: InMemoryService, first: TokenPair
) -> None:
    """The response to the first request may have been lost."""
    second = await service.refresh(first.refresh_token)
    service.clock.advance(seconds=9)
    again = await service.refresh(first.refresh_token)
    service.clock.advance(seconds=1)
    third = await service.refresh(first.refresh_token)
    assert len({tokens.refresh_token for tokens in (first, second, again, third)}) == 4
    assert await service.refresh(again.refresh_token)


async def test_grace_period_starts_at_the_first_use(
    service: InMemoryService, first: TokenPair
) -> None:
    """A repeat does not extend it."""
    await service.refresh(first.refresh_token)
    service.clock.advance(seconds=9)
    await service.refresh(first.refresh_token)
    service.clock.advance(seconds=2)
    with pytest.raises(InvalidGrant):
        await service.refresh(first.refresh_token)


async def test_reused_token_ends_the_session(service: InMemoryService, first: TokenPair) -> None:
    """Reuse after ten seconds ends the session, and that is committed."""
    second = await service.refresh(first.refresh_token)
    third = await service.refresh(second.refresh_token)
    service.clock.advance(seconds=10.000001)
    with pytest.raises(InvalidGrant):
        await service.refresh(first.refresh_token)
    for tokens in (first, second, third):
        with pytest.raises(InvalidGrant):
            await service.refresh(tokens.refresh_token)


async def test_reused_token_leaves_other_sessions(service: InMemoryService, ann: User) -> None:
    """Only the login of that token ends."""
    stolen = await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    other = await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await service.refresh(stolen.refresh_token)
    service.clock.advance(seconds=11)
    with pytest.raises(InvalidGrant):
        await service.refresh(stolen.refresh_token)
    assert await service.refresh(other.refresh_token)


async def test_refresh_does_not_extend_the_session(
    service: InMemoryService, first: TokenPair
) -> None:
    """The session ends thirty days after the login, however often it was refreshed."""
    service.clock.advance(seconds=SESSION_LIFETIME.total_seconds() - 1)
    second = await service.refresh(first.refresh_token)
    service.clock.advance(seconds=1)
    with pytest.raises(InvalidGrant):
        await service.refresh(second.refresh_token)


async def test_concurrent_refreshes_leave_one_lineage(
    service: InMemoryService, first: TokenPair
) -> None:
    """The first of twenty pairs that is used continues; use of another one is reuse."""
    refreshes = [service.refresh(first.refresh_token) for _ in range(20)]
    pairs = await asyncio.gather(*refreshes)
    assert len({pair.refresh_token for pair in pairs}) == 20
    heir, *others = pairs
    active = await service.refresh(heir.refresh_token)
    assert service.security_log.events == []
    with pytest.raises(InvalidGrant):
        await service.refresh(others[7].refresh_token)
    assert service.security_log.events == ["refresh token reused"]
    for tokens in (active, heir, first, *others):
        with pytest.raises(InvalidGrant):
            await service.refresh(tokens.refresh_token)


async def test_either_pair_of_a_repeated_refresh_can_continue(
    service: InMemoryService, first: TokenPair
) -> None:
    """The pair that is used first continues, not the one that was issued first."""
    lost = await service.refresh(first.refresh_token)
    arrived = await service.refresh(first.refresh_token)
    latest = await service.refresh(arrived.refresh_token)
    assert await service.refresh(latest.refresh_token)
    with pytest.raises(InvalidGrant):
        await service.refresh(lost.refresh_token)


async def test_every_refresh_can_be_repeated(service: InMemoryService, first: TokenPair) -> None:
    """A client that repeats each refresh and uses the last pair stays logged in."""
    tokens = first
    for _ in range(5):
        await service.refresh(tokens.refresh_token)
        tokens = await service.refresh(tokens.refresh_token)
        service.clock.advance(seconds=60)
    assert service.security_log.events == []


async def test_token_is_unusable_after_its_successor_was_used(
    service: InMemoryService, ann: User, first: TokenPair
) -> None:
    """The client got the response; a repeat is reuse, even within ten seconds.

    The warning names the user.
    """
    second = await service.refresh(first.refresh_token)
    third = await service.refresh(second.refresh_token)
    with pytest.raises(InvalidGrant):
        await service.refresh(first.refresh_token)
    with pytest.raises(InvalidGrant):
        await service.refresh(third.refresh_token)
    assert service.security_log.events == ["refresh token reused"]
    assert service.security_log.facts == [{"user_id": str(ann.id)}]


async def test_token_without_a_parent_starts_a_lineage(
    service: InMemoryService, first: TokenPair
) -> None:
    """Tokens that the previous release stored without a parent stay valid."""
    second = await service.refresh(first.refresh_token)
    digest = service.refresh.token_generator.digest(second.refresh_token)
    async with service.database.begin() as repositories:
        tokens = repositories.tables.refresh_tokens
        tokens[digest] = replace(tokens[digest], parent=None)
    one = await service.refresh(second.refresh_token)
    other = await service.refresh(second.refresh_token)
    await service.refresh(one.refresh_token)
    with pytest.raises(InvalidGrant):
        await service.refresh(other.refresh_token)


async def test_token_of_an_expired_session_is_no_reuse(
    service: InMemoryService, first: TokenPair
) -> None:
    """It is rejected without a security warning."""
    await service.refresh(first.refresh_token)
    service.clock.advance(seconds=SESSION_LIFETIME.total_seconds())
    with pytest.raises(InvalidGrant):
        await service.refresh(first.refresh_token)
    assert service.security_log.events == []


async def test_a_token_that_cannot_live_on_is_not_active(
    service: InMemoryService, first: TokenPair
) -> None:
    """Introspection tells of two tokens that one was given for which of them is still good."""
    shop, _ = await service.get(CreateClient)("shop", [Scope.CODES_READ], OPERATOR)
    introspect = service.get(IntrospectToken)

    async def is_active(tokens: TokenPair) -> bool:
        return await introspect(shop, tokens.refresh_token) is not None

    lost, arrived = [await service.refresh(first.refresh_token) for _ in range(2)]
    assert [await is_active(tokens) for tokens in (first, lost, arrived)] == [False, True, True]
    latest = await service.refresh(arrived.refresh_token)
    assert [await is_active(tokens) for tokens in (lost, arrived, latest)] == [False, False, True]


async def stored_hash(service: InMemoryService, ann: User) -> str:
    """Return the stored password hash of a user."""
    async with service.database.read() as repositories:
        user = await repositories.users.find(ann.id)
    assert user is not None
    return user.password_hash


async def test_login_rehashes_an_outdated_hash(service: InMemoryService, ann: User) -> None:
    """Once; a failed login changes nothing."""
    service.password_hasher.outdated_hashes = {ann.password_hash}
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, "another one entirely", CLIENT_IP)
    assert await stored_hash(service, ann) == ann.password_hash
    await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    renewed = await stored_hash(service, ann)
    assert renewed != ann.password_hash
    await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(service, ann) == renewed


async def test_concurrent_logins_with_an_outdated_hash_succeed(
    service: InMemoryService, ann: User
) -> None:
    """A login whose hash was replaced by another one reads it again."""
    service.password_hasher.outdated_hashes = {ann.password_hash}
    logins = [service.log_in(ann.email, PASSWORD, CLIENT_IP) for _ in range(20)]
    assert len(await asyncio.gather(*logins)) == 20
    assert await stored_hash(service, ann) not in service.password_hasher.outdated_hashes


async def test_login_succeeds_when_rehashing_fails(service: InMemoryService, ann: User) -> None:
    """A full queue leaves the old hash, which stays valid."""
    service.password_hasher.outdated_hashes = {ann.password_hash}
    service.password_hasher.error = Unavailable()
    assert await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(service, ann) == ann.password_hash


async def test_rehash_does_not_overwrite_a_new_password(
    service: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is replaced only if the hash that was verified is still stored."""
    service.password_hasher.outdated_hashes = {ann.password_hash}
    changed = await service.password_hasher.hash("staple battery horse")

    async def change_meanwhile(_: str) -> str:
        async with service.database.begin() as repositories:
            await repositories.users.save(replace(ann, password_hash=changed))
        return "a new hash of the old password"

    monkeypatch.setattr(service.password_hasher, "hash", change_meanwhile)
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await stored_hash(service, ann) == changed


async def test_login_starts_a_session_of_thirty_days(
    service: InMemoryService, ann: User, first: TokenPair
) -> None:
    """It belongs to the password grant's client and has the scope of users."""
    now = service.clock.now()
    async with service.database.read() as repositories:
        [session] = await repositories.sessions.list_all(ann.id)
    assert session == Session(
        session.id, ann.id, "first-party", "account", now, now + timedelta(days=30)
    )
    caller = service.access_tokens.verify(first.access_token).caller
    assert caller == user_caller(ann, session.id)


async def test_logins_are_throttled_by_account(service: InMemoryService, ann: User) -> None:
    """All spellings of an address count together; another client IP or account has its own."""
    service.limits.limits |= {RateLimitGroup.LOGIN_ACCOUNT: 1, RateLimitGroup.LOGIN_CLIENT_IP: 1}
    assert await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    with pytest.raises(TooManyRequests) as raised:
        await service.log_in("ANN@EXAMPLE.COM", PASSWORD, CLIENT_IP)
    assert raised.value.detail == "Too many logins. Try again later."
    assert await service.log_in("ANN@EXAMPLE.COM", PASSWORD, "192.0.2.2")
    for username in ("bob@example.com", "no address", "another"):
        with pytest.raises(InvalidGrant):
            await service.log_in(username, PASSWORD, CLIENT_IP)
        with pytest.raises(TooManyRequests):
            await service.log_in(username, PASSWORD, CLIENT_IP)


@pytest.mark.parametrize("change", ["block", "erase"])
async def test_login_fails_if_the_account_ends_meanwhile(
    service: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A block or an erasure during the verification of the password leaves no session."""
    verify = service.password_hasher.verify

    async def verify_slowly(password: str, password_hash: str | None, *_: object) -> bool:
        matches = await verify(password, password_hash)
        monkeypatch.setattr(service.password_hasher, "verify", verify)
        if change == "block":
            await service.block_account(ann.email)
        else:
            await service.erase_account(ann.id, PASSWORD)
        return matches

    monkeypatch.setattr(service.password_hasher, "verify", verify_slowly)
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    async with service.database.read() as repositories:
        assert not repositories.tables.sessions


async def test_login_is_tried_twice(
    service: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash that another login replaces each time ends it, at the cost of two verifications."""
    verify = service.password_hasher.verify

    async def replace_hash(password: str, password_hash: str | None, *_: object) -> bool:
        matches = await verify(password, password_hash)
        renewed = await service.password_hasher.hash(PASSWORD)
        async with service.database.begin() as repositories:
            await repositories.users.save(replace(ann, password_hash=renewed))
        return matches

    monkeypatch.setattr(service.password_hasher, "verify", replace_hash)
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert len(service.password_hasher.verified_hashes) == 2


async def test_login_with_an_imported_hash_stores_our_own(service: InMemoryService) -> None:
    """The hash was made of the password as typed; ours is made of it in NFC."""
    typed, normal = "jose\u0301 passphrase", "jos\u00e9 passphrase"
    digest = (await service.password_hasher.hash(typed)).partition(":")[2]
    imported = f"imported:{digest}"
    bob = await import_user(service, "bob@example.com", imported)
    with pytest.raises(InvalidGrant):
        await service.log_in(bob.email, normal, CLIENT_IP)
    assert await service.log_in(bob.email, typed, CLIENT_IP)
    async with service.database.read() as repositories:
        stored = await repositories.users.find(bob.id)
        assert stored is not None
        assert await repositories.users.find_costliest_hash() is None
    assert await service.password_hasher.verify(normal, stored.password_hash)
    for form in (typed, normal):
        assert await service.log_in(bob.email, form, CLIENT_IP)


@pytest.mark.parametrize("username", ["ann@example.com", "nobody@example.com", "no address"])
@pytest.mark.parametrize("status", ["active", "blocked"])
async def test_failed_login_takes_as_long_as_the_costliest_hash(
    service: InMemoryService, ann: User, username: str, status: str
) -> None:
    """Whatever the account; and twice as long for a password that has two forms."""
    imported = "imported:digest"
    await import_user(service, "bob@example.com", imported)
    if status == "blocked":
        await service.block_account(ann.email)
    for password, forms in (("wrong", 1), ("wro\u0301ng", 2)):
        service.password_hasher.costliest_hashes.clear()
        with pytest.raises(InvalidGrant):
            await service.log_in(username, password, CLIENT_IP)
        assert service.password_hasher.costliest_hashes == [imported] * forms


async def import_user(service: InMemoryService, email: str, password_hash: str) -> User:
    """Store a user with a hash of another service."""
    user = await service.create_account(email)
    async with service.database.begin() as repositories:
        user = replace(user, password_hash=password_hash)
        await repositories.users.save(user)
        repositories.tables.password_costs[user.id] = 20
    service.password_hasher.outdated_hashes.add(password_hash)
    return user
