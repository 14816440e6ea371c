"""Erasure, and the expiry of referrals and of unconfirmed accounts."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import CodeTaken
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import (
    HOUR,
    NOW,
    make_referral,
    store_code,
    store_referral,
    store_user,
)


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
        await repositories.referrals.set_status(referral.id, ReferralStatus.CONFIRMED, NOW)
        assert await repositories.referrals.lock_pending(bob.id) is None
        assert await repositories.referrals.lock_pending(code.user_id) is None
        found = await repositories.referrals.find_by_referred(bob.id)
    assert found == replace(referral, status=ReferralStatus.CONFIRMED)


async def test_overdue_pending_referral_is_found(store: Database) -> None:
    """The limit is inclusive; decided referrals, and those that do not expire, are skipped."""
    early = datetime(2020, 1, 1, tzinfo=UTC)
    code = await store_code(store, await store_user(store))
    await store_referral(store, code, joined_at=early)
    pending = {"status": ReferralStatus.PENDING}
    await store_referral(store, code, joined_at=early, expires=False, **pending)
    referral, _ = await store_referral(store, code, joined_at=early, **pending)
    await store_referral(store, code, joined_at=early + HOUR, **pending)
    async with store.begin() as repositories:
        assert await repositories.referrals.lock_overdue(early - HOUR) is None
        assert await repositories.referrals.lock_overdue(early) == referral
        await repositories.referrals.set_status(referral.id, ReferralStatus.REJECTED, NOW)
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
        assert await repositories.codes.revert_use(code.id, NOW) == replace(code, uses=1)
        await repositories.codes.delete(code.id, NOW)
        assert await repositories.codes.revert_use(code.id, NOW) is None
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert account.referral_count == 0


async def test_uses_cannot_become_negative(store: Database) -> None:
    """The statement is rejected."""
    code = await store_code(store, await store_user(store))
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.codes.revert_use(code.id, NOW)


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
                await repositories.codes.revert_use(other, NOW)
                await repositories.codes.delete_all(owner.id, NOW)

        await asyncio.gather(erase_referrer(ann, codes[1].id), erase_referrer(bob, codes[0].id))
        async with store.read() as repositories:
            assert (
                await repositories.codes.list_all(ann.id)
                == await repositories.codes.list_all(bob.id)
                == []
            )
