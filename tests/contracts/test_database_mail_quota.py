"""The count of mails: the port `Mails`; and what mail needs of users, referrals and sessions."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.jobs import PruneJob, WelcomeMailJob
from referral.core.entities.users import Locale
from referral.core.ports.repositories import Database
from referral.core.use_cases.notifications import password_reset_quota
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
    store: Database, quota: str, *, minute: float = 0, mail: UUID | None = None
) -> object:
    """Ask for one of three places an hour, some minutes after the beginning."""
    async with store.begin() as records:
        return await records.mail_quota.reserve_slot(
            mail or ID_GENERATOR.new(), quota, NOW + timedelta(minutes=minute), slots=3, window=HOUR
        )


async def test_the_places_of_an_hour_are_given_out_once(store: Database) -> None:
    """The fourth has to wait until the first is an hour old; other addresses do not count."""
    address = f"{ID_GENERATOR.new()}@example.com"
    assert [await reserve_slot(store, address, minute=minute) for minute in (0, 10, 20)] == [
        None
    ] * 3
    assert await reserve_slot(store, address, minute=30) == NOW + HOUR
    assert await reserve_slot(store, f"x{address}", minute=30) is None
    assert await reserve_slot(store, address, minute=60) is None
    assert await reserve_slot(store, address, minute=61) == NOW + timedelta(minutes=70)


async def test_reset_mails_have_places_of_their_own(store: Database) -> None:
    """As many, and neither kind takes one of the other's."""
    address = f"{ID_GENERATOR.new()}@example.com"
    for quota in (password_reset_quota(address), address):
        found = [await reserve_slot(store, quota) for _ in range(4)]
        assert found == [None] * 3 + [NOW + HOUR]


async def test_a_mail_that_was_counted_is_not_counted_again(store: Database) -> None:
    """A second attempt at it goes out, however full the hour is."""
    address, mail = f"{ID_GENERATOR.new()}@example.com", ID_GENERATOR.new()
    for _ in range(5):
        assert await reserve_slot(store, address, mail=mail) is None
    assert [await reserve_slot(store, address) for _ in range(3)] == [None, None, NOW + HOUR]
    assert await reserve_slot(store, address, mail=mail) is None


async def test_of_many_who_ask_at_once_as_many_get_a_place_as_there_are(store: Database) -> None:
    """Thirty at once, three places."""
    address = f"{ID_GENERATOR.new()}@example.com"
    found = await asyncio.gather(*(reserve_slot(store, address) for _ in range(30)))
    assert found.count(None) == 3


async def test_a_count_of_mails_may_begin_anew(store: Database) -> None:
    """For one quota and no other."""
    one, other = f"{ID_GENERATOR.new()}@example.com", f"{ID_GENERATOR.new()}@example.com"
    async with store.begin() as records:
        for quota in (one, other):
            assert (
                await records.mail_quota.reserve_slot(
                    ID_GENERATOR.new(), quota, NOW, slots=1, window=HOUR
                )
                is None
            )
        await records.mail_quota.reset(one)
        assert (
            await records.mail_quota.reserve_slot(
                ID_GENERATOR.new(), one, NOW, slots=1, window=HOUR
            )
            is None
        )
        assert (
            await records.mail_quota.reserve_slot(
                ID_GENERATOR.new(), other, NOW, slots=1, window=HOUR
            )
            == NOW + HOUR
        )


async def test_old_marks_are_pruned(store: Database) -> None:
    """And only those."""
    address = f"{ID_GENERATOR.new()}@example.com"
    old, fresh = ID_GENERATOR.new(), ID_GENERATOR.new()
    await reserve_slot(store, address, mail=old)
    await reserve_slot(store, address, minute=59, mail=fresh)
    async with store.begin() as records:
        assert not await records.mail_quota.prune(NOW + timedelta(minutes=30))
    assert [await reserve_slot(store, address, minute=59) for _ in range(3)][1:] == [
        None,
        NOW + timedelta(minutes=119),
    ]


async def test_language_and_mute_are_stored(store: Database) -> None:
    """For that user alone."""
    ann, bob = await store_user(store), await store_user(store)
    async with store.begin() as records:
        await records.users.save(replace(ann, locale=Locale.RU, notify_on_referral=False))
    async with store.read() as records:
        changed = await records.users.find(ann.id)
        assert changed is not None
        assert (changed.locale, changed.notify_on_referral) == (Locale.RU, False)
        assert await records.users.find(bob.id) == bob


async def test_a_referral_is_claimed_by_one_mail(store: Database) -> None:
    """The same one again may have it, another one not."""
    code = await store_code(store, await store_user(store))
    referral, _ = await store_referral(store, code)
    first, second = ID_GENERATOR.new(), ID_GENERATOR.new()
    async with store.begin() as records:
        for mail, found in ((first, True), (second, False), (first, True)):
            referrer = await records.referrals.assign_to_mail(
                referral.id, mail, include_unassigned=False
            )
            assert (referrer is not None) is found
        (told,) = await records.referrals.list_by_mail(referral.referrer_id, first)
        assert told.id == referral.referred_id
        assert await records.referrals.list_by_mail(referral.referrer_id, second) == []
        assert (
            await records.referrals.assign_to_mail(
                ID_GENERATOR.new(), first, include_unassigned=True
            )
            is None
        )


async def test_a_referrer_who_is_gone_is_told_of_nobody(store: Database) -> None:
    """A referral that is confirmed after its referrer left concerns nobody."""
    ann = await store_user(store)
    referral, _ = await store_referral(store, await store_code(store, ann))
    async with store.begin() as records:
        await records.users.erase(ann.id, NOW)
        assert (
            await records.referrals.assign_to_mail(
                referral.id, ID_GENERATOR.new(), include_unassigned=True
            )
            is None
        )


async def test_ended_sessions_are_pruned(store: Database) -> None:
    """And only those; their time is the one that is asked for."""
    session = make_session(await store_user(store))
    async with store.begin() as records:
        await records.sessions.add(session)
        assert not await records.sessions.prune(session.expires_at - HOUR)
        await records.sessions.revoke(session.id)
        assert not await records.sessions.prune(session.expires_at)


async def test_a_queue_takes_several_jobs_and_none(store: Database) -> None:
    """In the transaction, as with everything else."""
    with pytest.raises(ZeroDivisionError):
        await _fail_after(store)
    async with store.begin() as records:
        await records.jobs.enqueue(
            WelcomeMailJob(ID_GENERATOR.new()), WelcomeMailJob(ID_GENERATOR.new())
        )
        assert not await records.jobs.prune(NOW - HOUR)


async def _fail_after(store: Database) -> None:
    async with store.begin() as records:
        await records.jobs.enqueue(PruneJob())
        raise ZeroDivisionError
