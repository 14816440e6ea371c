"""The port `MailQuota`, and what mails need of users, referrals, sessions and jobs."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.jobs import PruneJob, WelcomeMailJob
from referral.core.entities.users import Locale
from referral.core.policies.mail_quota import password_reset_quota
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    make_session,
    store_code,
    store_referral,
    store_user,
)


async def reserve_slot(
    store: Database, quota: str, *, minute: float = 0, mail_id: UUID | None = None
) -> object:
    """Reserve one of three slots per hour, some minutes after `NOW`."""
    async with store.begin() as repositories:
        return await repositories.mail_quota.reserve_slot(
            mail_id or ID_GENERATOR.new(),
            quota,
            NOW + timedelta(minutes=minute),
            slots=3,
            window=HOUR,
        )


async def test_mail_slots_per_hour_are_limited(store: Database) -> None:
    """The fourth mail has to wait until the first is an hour old; other recipients do not count."""
    email = f"{ID_GENERATOR.new()}@example.com"
    assert [await reserve_slot(store, email, minute=minute) for minute in (0, 10, 20)] == [None] * 3
    assert await reserve_slot(store, email, minute=30) == NOW + HOUR
    assert await reserve_slot(store, f"x{email}", minute=30) is None
    assert await reserve_slot(store, email, minute=60) is None
    assert await reserve_slot(store, email, minute=61) == NOW + timedelta(minutes=70)


async def test_reset_mails_have_their_own_quota(store: Database) -> None:
    """Of the same size; neither kind uses the other's slots."""
    email = f"{ID_GENERATOR.new()}@example.com"
    for quota in (password_reset_quota(email), email):
        found = [await reserve_slot(store, quota) for _ in range(4)]
        assert found == [None] * 3 + [NOW + HOUR]


async def test_retried_mail_keeps_its_slot(store: Database) -> None:
    """A retry is sent, however full the quota is."""
    email, mail_id = f"{ID_GENERATOR.new()}@example.com", ID_GENERATOR.new()
    for _ in range(5):
        assert await reserve_slot(store, email, mail_id=mail_id) is None
    assert [await reserve_slot(store, email) for _ in range(3)] == [None, None, NOW + HOUR]
    assert await reserve_slot(store, email, mail_id=mail_id) is None


async def test_concurrent_reservations_do_not_exceed_the_quota(store: Database) -> None:
    """Thirty concurrent mails, three slots."""
    email = f"{ID_GENERATOR.new()}@example.com"
    found = await asyncio.gather(*(reserve_slot(store, email) for _ in range(30)))
    assert found.count(None) == 3


async def test_mail_quota_is_reset(store: Database) -> None:
    """For one quota and no other."""
    one, other = f"{ID_GENERATOR.new()}@example.com", f"{ID_GENERATOR.new()}@example.com"
    async with store.begin() as repositories:
        for quota in (one, other):
            assert (
                await repositories.mail_quota.reserve_slot(
                    ID_GENERATOR.new(), quota, NOW, slots=1, window=HOUR
                )
                is None
            )
        await repositories.mail_quota.reset(one)
        assert (
            await repositories.mail_quota.reserve_slot(
                ID_GENERATOR.new(), one, NOW, slots=1, window=HOUR
            )
            is None
        )
        assert (
            await repositories.mail_quota.reserve_slot(
                ID_GENERATOR.new(), other, NOW, slots=1, window=HOUR
            )
            == NOW + HOUR
        )


async def test_old_mail_slots_are_pruned(store: Database) -> None:
    """Newer slots stay."""
    email = f"{ID_GENERATOR.new()}@example.com"
    old, fresh = ID_GENERATOR.new(), ID_GENERATOR.new()
    await reserve_slot(store, email, mail_id=old)
    await reserve_slot(store, email, minute=59, mail_id=fresh)
    async with store.begin() as repositories:
        assert not await repositories.mail_quota.prune(NOW + timedelta(minutes=30))
    assert [await reserve_slot(store, email, minute=59) for _ in range(3)][1:] == [
        None,
        NOW + timedelta(minutes=119),
    ]


async def test_locale_and_notification_setting_are_stored(store: Database) -> None:
    """For that user alone."""
    ann, bob = await store_user(store), await store_user(store)
    async with store.begin() as repositories:
        await repositories.users.save(replace(ann, locale=Locale.RU, notify_on_referral=False))
    async with store.read() as repositories:
        changed = await repositories.users.find(ann.id)
        assert changed is not None
        assert (changed.locale, changed.notify_on_referral) == (Locale.RU, False)
        assert await repositories.users.find(bob.id) == bob


async def test_referral_is_reported_in_one_mail(store: Database) -> None:
    """The same mail gets it again, another one does not."""
    code = await store_code(store, await store_user(store))
    referral, _ = await store_referral(store, code)
    first, second = ID_GENERATOR.new(), ID_GENERATOR.new()
    async with store.begin() as repositories:
        for mail_id, found in ((first, True), (second, False), (first, True)):
            referrer = await repositories.referrals.assign_to_mail(
                referral.id, mail_id, include_unassigned=False
            )
            assert (referrer is not None) is found
        (reported,) = await repositories.referrals.list_by_mail(referral.referrer_id, first)
        assert reported.id == referral.referred_id
        assert await repositories.referrals.list_by_mail(referral.referrer_id, second) == []
        assert (
            await repositories.referrals.assign_to_mail(
                ID_GENERATOR.new(), first, include_unassigned=True
            )
            is None
        )


async def test_erased_referrer_is_not_notified(store: Database) -> None:
    """Of a referral that is confirmed after the erasure."""
    ann = await store_user(store)
    referral, _ = await store_referral(store, await store_code(store, ann))
    async with store.begin() as repositories:
        await repositories.users.erase(ann.id, NOW)
        assert (
            await repositories.referrals.assign_to_mail(
                referral.id, ID_GENERATOR.new(), include_unassigned=True
            )
            is None
        )


async def test_expired_sessions_are_pruned(store: Database) -> None:
    """By the time that is given; others stay."""
    session = make_session(await store_user(store))
    async with store.begin() as repositories:
        await repositories.sessions.add(session)
        assert not await repositories.sessions.prune(session.expires_at - HOUR)
        await repositories.sessions.revoke(session.id)
        assert not await repositories.sessions.prune(session.expires_at)


async def test_jobs_are_enqueued_in_the_transaction(store: Database) -> None:
    """Several at once, and none if the transaction fails."""
    with pytest.raises(ZeroDivisionError):
        await _fail_after(store)
    async with store.begin() as repositories:
        await repositories.jobs.enqueue(
            WelcomeMailJob(ID_GENERATOR.new()), WelcomeMailJob(ID_GENERATOR.new())
        )
        assert not await repositories.jobs.prune(NOW - HOUR)


async def _fail_after(store: Database) -> None:
    async with store.begin() as repositories:
        await repositories.jobs.enqueue(PruneJob())
        raise ZeroDivisionError
