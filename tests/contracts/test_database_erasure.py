"""Erasure and expiry: accounts, referrals, sessions, one-time tokens, stored responses, clients."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.clients import Client, Scope
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Role, User
from referral.core.errors import CodeTaken, IdempotencyKeyReused
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    make_referral,
    make_refresh_token,
    make_session,
    store_code,
    store_referral,
    store_user,
)

STORED_RESPONSE = {"status": 201, "body": b'{"id": 1}', "location": "/here"}


def make_request(fingerprint: bytes = b"f" * 32) -> IdempotentRequest[None]:
    """Return a request with a new idempotency key."""
    return IdempotentRequest(
        ID_GENERATOR.new().bytes * 2, (fingerprint,), lambda _: STORED_RESPONSE
    )


def make_one_time_token(user: User, purpose: TokenPurpose = TokenPurpose.CONFIRM) -> OneTimeToken:
    """Return a new token that is valid for an hour."""
    return OneTimeToken(ID_GENERATOR.new().bytes * 2, user.id, purpose, NOW + HOUR)


async def test_saved_account_is_found(store: Database) -> None:
    """Every field but the id and `created_at` can change."""
    user = await store_user(store)
    changed = replace(user, role=Role.ADMIN, password_hash="h", blocked_at=NOW)  # noqa: S106
    async with store.begin() as repositories:
        await repositories.users.save(changed)
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) == changed


async def test_erased_account_is_not_found(store: Database) -> None:
    """Its e-mail address is free, its referral stays without the address, its codes stay taken."""
    ann = await store_user(store)
    code = await store_code(store, ann)
    referral, bob = await store_referral(store, code)
    erased_code = await store_code(store, bob)
    async with store.begin() as repositories:
        await repositories.codes.delete_all(bob.id, NOW)
        await repositories.users.erase(bob.id, NOW)
    async with store.begin() as repositories:
        assert await repositories.users.find(bob.id) is None
        assert await repositories.users.lock(bob.id) is None
        assert await repositories.users.find_by_email(bob.email_key) is None
        assert await repositories.codes.list_all(bob.id) == []
        (joined,) = await repositories.referrals.list_page(ann.id, status=None, after=None, limit=5)
        assert (joined.id, joined.email) == (bob.id, None)
        assert await repositories.referrals.find_by_referred(bob.id) == referral
    recreated = await store_user(store, email_key=bob.email_key)
    with pytest.raises(CodeTaken):
        await store_code(store, recreated, text=erased_code.text)


async def test_erased_referrer_is_not_shown(store: Database, read_model: ReadModel) -> None:
    """The referral stays."""
    ann = await store_user(store)
    _, bob = await store_referral(store, await store_code(store, ann))
    async with store.begin() as repositories:
        await repositories.users.erase(ann.id, NOW)
    account = await read_model.find_account(bob.id, 10, NOW)
    assert account is not None
    assert account.referrer is None
    async with store.read() as repositories:
        assert await repositories.referrals.find_by_referred(bob.id) is not None


async def test_pending_referral_is_decided_once(store: Database) -> None:
    """No pending referral is found for users without one or with a decided one."""
    code = await store_code(store, await store_user(store))
    referral, bob = await store_referral(store, code, status=ReferralStatus.PENDING)
    async with store.begin() as repositories:
        assert await repositories.referrals.lock_pending(bob.id) == referral
        await repositories.referrals.set_status(referral.id, ReferralStatus.CONFIRMED)
        assert await repositories.referrals.lock_pending(bob.id) is None
        assert await repositories.referrals.lock_pending(code.user_id) is None
        found = await repositories.referrals.find_by_referred(bob.id)
    assert found == replace(referral, status=ReferralStatus.CONFIRMED)


async def test_overdue_pending_referral_is_found(store: Database) -> None:
    """The limit is inclusive; decided referrals are skipped."""
    early = datetime(2020, 1, 1, tzinfo=UTC)
    code = await store_code(store, await store_user(store))
    await store_referral(store, code, joined_at=early)
    pending = {"status": ReferralStatus.PENDING}
    referral, _ = await store_referral(store, code, joined_at=early, **pending)
    await store_referral(store, code, joined_at=early + HOUR, **pending)
    async with store.begin() as repositories:
        assert await repositories.referrals.lock_overdue(early - HOUR) is None
        assert await repositories.referrals.lock_overdue(early) == referral
        await repositories.referrals.set_status(referral.id, ReferralStatus.REJECTED)
        assert await repositories.referrals.lock_overdue(early) is None
        listed = await repositories.referrals.list_page(
            code.user_id, status=ReferralStatus.REJECTED, after=None, limit=9
        )
    assert [joined.referral_id for joined in listed] == [referral.id]


async def test_use_is_returned(store: Database, read_model: ReadModel) -> None:
    """The code is returned unless it is deleted, and its owner's count decreases."""
    ann = await store_user(store)
    code = await store_code(store, ann, max_uses=2, uses=2)
    async with store.begin() as repositories:
        assert await repositories.codes.revert_use(code.id) == replace(code, uses=1)
        await repositories.codes.delete(code.id, NOW)
        assert await repositories.codes.revert_use(code.id) is None
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert account.referral_count == 0


async def test_uses_cannot_become_negative(store: Database) -> None:
    """The statement is rejected."""
    code = await store_code(store, await store_user(store))
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.codes.revert_use(code.id)


async def test_unconfirmed_account_is_found_after_its_deadline(store: Database) -> None:
    """Confirmed, blocked and erased accounts are not, nor those without a deadline."""
    early = datetime(2020, 1, 1, tzinfo=UTC)
    unconfirmed = await store_user(store, confirm_by=early)
    await store_user(store, confirm_by=early, email_verified=True)
    await store_user(store, confirm_by=early, blocked_at=NOW)
    await store_user(store, confirm_by=NOW)
    async with store.begin() as repositories:
        assert await repositories.users.lock_unconfirmed(early - HOUR) is None
        assert await repositories.users.lock_unconfirmed(early) == unconfirmed
        await repositories.users.erase(unconfirmed.id, NOW)
        assert await repositories.users.lock_unconfirmed(early) is None
    other = await store_user(store, confirm_by=early)
    async with store.begin() as repositories:
        assert await repositories.users.clear_confirmation_deadlines() is False
        assert await repositories.users.lock_unconfirmed(NOW) is None
        assert await repositories.users.find(other.id) == replace(other, confirm_by=None)


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


async def test_token_use_consumes_all_tokens_of_its_purpose(store: Database) -> None:
    """A token is valid for its purpose until it expires; tokens of other purposes stay."""
    ann = await store_user(store)
    one, two, other = (
        make_one_time_token(ann),
        make_one_time_token(ann),
        make_one_time_token(ann, TokenPurpose.RESET),
    )
    async with store.begin() as repositories:
        tokens = repositories.one_time_tokens
        for token in (one, two, other):
            await tokens.add(token)
        assert await tokens.find_user_id(one.digest, TokenPurpose.CONFIRM, NOW) == ann.id
        assert await tokens.consume(one.digest, TokenPurpose.RESET, NOW) is None
        assert await tokens.consume(one.digest, TokenPurpose.CONFIRM, NOW + HOUR) is None
        assert await tokens.consume(one.digest, TokenPurpose.CONFIRM, NOW) == ann.id
        assert await tokens.consume(two.digest, TokenPurpose.CONFIRM, NOW) is None
        assert await tokens.find_user_id(other.digest, TokenPurpose.RESET, NOW) == ann.id
        await tokens.delete(ann.id)
        assert await tokens.find_user_id(other.digest, TokenPurpose.RESET, NOW) is None


async def test_token_lock_is_exclusive(store: Database) -> None:
    """Until it is released or times out; it does not consume the token, and needs a valid one."""
    ann = await store_user(store)
    token = make_one_time_token(ann, TokenPurpose.RESET)
    later, latest = NOW + HOUR / 4, NOW + HOUR / 2
    async with store.begin() as repositories:
        tokens = repositories.one_time_tokens
        await tokens.add(token)
        assert not await tokens.acquire(token.digest, TokenPurpose.CONFIRM, NOW, later)
        assert not await tokens.acquire(
            token.digest, TokenPurpose.RESET, NOW + HOUR, NOW + 2 * HOUR
        )
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert await tokens.find_user_id(token.digest, TokenPurpose.RESET, NOW) == ann.id
        await tokens.release(token.digest, later)
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, later, latest)
        await tokens.release(token.digest, later)
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, later, latest)
        assert await tokens.consume(token.digest, TokenPurpose.RESET, NOW) == ann.id
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, latest, NOW + HOUR)


async def test_concurrent_token_locks(store: Database) -> None:
    """Of twenty concurrent callers, one acquires the lock."""
    token = make_one_time_token(await store_user(store), TokenPurpose.RESET)
    async with store.begin() as repositories:
        await repositories.one_time_tokens.add(token)

    async def acquire() -> bool:
        async with store.begin() as repositories:
            tokens = repositories.one_time_tokens
            return await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, NOW + HOUR)

    assert sum(await asyncio.gather(*(acquire() for _ in range(20)))) == 1


async def test_expired_tokens_and_responses_are_pruned(store: Database) -> None:
    """Valid ones stay."""
    ann = await store_user(store)
    token, request = make_one_time_token(ann), make_request()
    async with store.begin() as repositories:
        await repositories.one_time_tokens.add(token)
        await repositories.idempotency.save(request, STORED_RESPONSE, ann.id, NOW)
        assert await repositories.one_time_tokens.prune(NOW) is False
        assert await repositories.idempotency.prune(NOW) is False
        assert await repositories.idempotency.acquire(request, NOW) == STORED_RESPONSE
        await repositories.one_time_tokens.prune(NOW + HOUR)
        await repositories.idempotency.prune(NOW + HOUR)
        assert (
            await repositories.one_time_tokens.find_user_id(token.digest, token.purpose, NOW)
            is None
        )
        assert await repositories.idempotency.acquire(request, NOW) is None


async def test_idempotency_key_returns_its_stored_response(store: Database) -> None:
    """For one of its fingerprints, until it expires or is deleted."""
    ann, request = await store_user(store), make_request()
    async with store.begin() as repositories:
        assert await repositories.idempotency.acquire(request, NOW) is None
        await repositories.idempotency.save(request, STORED_RESPONSE, ann.id, NOW)
    rotated = replace(request, fingerprints=(b"n" * 32, *request.fingerprints))
    async with store.begin() as repositories:
        assert await repositories.idempotency.acquire(rotated, NOW) == STORED_RESPONSE
        assert (
            await repositories.idempotency.find(rotated.key, rotated.fingerprints, NOW)
            == STORED_RESPONSE
        )
        await repositories.idempotency.delete(ann.id)
        assert await repositories.idempotency.acquire(request, NOW) is None


async def test_idempotency_key_with_another_body_is_rejected(store: Database) -> None:
    """The first response stays."""
    request = make_request()
    async with store.begin() as repositories:
        await repositories.idempotency.save(request, STORED_RESPONSE, None, NOW)
    with pytest.raises(IdempotencyKeyReused):
        async with store.begin() as repositories:
            await repositories.idempotency.acquire(replace(request, fingerprints=(b"x" * 32,)), NOW)
    async with store.read() as repositories:
        with pytest.raises(IdempotencyKeyReused):
            await repositories.idempotency.find(request.key, (b"x" * 32,), NOW)


async def test_stored_response_is_found_until_it_expires(store: Database) -> None:
    """Without a lock; afterwards the key is free."""
    request = make_request()
    async with store.begin() as repositories:
        await repositories.idempotency.save(request, STORED_RESPONSE, None, NOW)
    async with store.read() as repositories:
        assert (
            await repositories.idempotency.find(request.key, request.fingerprints, NOW)
            == STORED_RESPONSE
        )
        later = NOW + timedelta(microseconds=1)
        assert await repositories.idempotency.find(request.key, (b"x" * 32,), later) is None
        assert await repositories.idempotency.find(b"new" * 10, request.fingerprints, NOW) is None


async def test_stored_client_is_found(store: Database) -> None:
    """With its scopes."""
    scopes = frozenset({Scope.CODES_READ, Scope.USERS_READ})
    client = Client(ID_GENERATOR.new(), "shop", b"d" * 32, scopes, NOW)
    async with store.begin() as repositories:
        await repositories.clients.add(client)
    async with store.read() as repositories:
        assert await repositories.clients.find(client.id) == client
        assert await repositories.clients.find(ID_GENERATOR.new()) is None


async def test_concurrent_erasure_and_registration_do_not_deadlock(store: Database) -> None:
    """Whichever comes first, the registration finds either the code or none."""
    for _ in range(10):
        ann, bob = await store_user(store), await store_user(store)
        code = await store_code(store, ann)

        async def erase(user: User = ann) -> None:
            async with store.begin() as repositories:
                await repositories.users.lock(user.id)
                await repositories.codes.delete_all(user.id, NOW)
                await repositories.users.erase(user.id, NOW)

        async def credit(text: str = code.text, user: User = bob) -> bool:
            async with store.begin() as repositories:
                found = await repositories.codes.lock_enabled_by_text(text)
                if found is None:
                    return False
                await repositories.referrals.add(make_referral(found, user))
                return await repositories.codes.count_use(found.id, NOW)

        _, credited = await asyncio.gather(erase(), credit())
        async with store.read() as repositories:
            assert (await repositories.referrals.find_by_referred(bob.id) is not None) == credited


async def test_ended_session_may_not_write(store: Database, read_model: ReadModel) -> None:
    """Nor may one of a deleted user; the write itself checks for a block."""
    ann = await store_user(store)
    session = make_session(ann)
    assert not await read_model.permits_changes(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.sessions.add(session)
    assert await read_model.permits_changes(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.sessions.revoke_all(ann.id)
    assert not await read_model.permits_changes(ann.id, session.id)
    async with store.begin() as repositories:
        await repositories.users.save(replace(ann, blocked_at=NOW))
    assert await read_model.permits_changes(ann.id, session.id)


async def test_concurrent_erasures_of_mutual_referrers_do_not_deadlock(store: Database) -> None:
    """Each locks the codes of both users."""
    for _ in range(5):
        ann, bob = await store_user(store), await store_user(store)
        codes = [await store_code(store, owner, uses=1) for owner in (ann, bob)]

        async def erase_referrer(owner: User, other: UUID) -> None:
            async with store.begin() as repositories:
                await repositories.users.lock(owner.id)
                await repositories.codes.lock_all(owner.id, other)
                await asyncio.sleep(0)
                await repositories.codes.revert_use(other)
                await repositories.codes.delete_all(owner.id, NOW)

        await asyncio.gather(erase_referrer(ann, codes[1].id), erase_referrer(bob, codes[0].id))
        async with store.read() as repositories:
            assert (
                await repositories.codes.list_all(ann.id)
                == await repositories.codes.list_all(bob.id)
                == []
            )
