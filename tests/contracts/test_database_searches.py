"""The ports `CodeSearch` and `ReferralSearch`, and the decisions on referrals."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from referral.adapters.postgres.repositories import codes_by_status
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter, ReferralRecord
from referral.core.entities.users import User
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    NOW,
    make_code,
    make_referral,
    make_user,
    store_code,
    store_referral,
    store_user,
)

MINUTE = timedelta(minutes=1)


async def list_codes(store: Database, wanted: CodeFilter) -> list[Code]:
    """Return all codes of a list, read in pages of two."""
    found: list[Code] = []
    async with store.read() as repositories:
        while True:
            after = found[-1].id if found else None
            page = await repositories.code_search.list_page(wanted, NOW, after=after, limit=2)
            found += page
            if len(page) < 2:
                return found


async def list_referrals(store: Database, wanted: ReferralFilter) -> list[ReferralRecord]:
    """Return all referrals of a list, read in pages of two."""
    found: list[ReferralRecord] = []
    async with store.read() as repositories:
        while True:
            after = found[-1].referral_id if found else None
            page = await repositories.referral_search.list_page(wanted, after=after, limit=2)
            found += page
            if len(page) < 2:
                return found


async def test_codes_are_found_by_each_filter(store: Database) -> None:
    """By text in any case, owner and status; deleted ones are not found."""
    ann, bob = await store_user(store), await store_user(store)
    spent: dict[str, Any] = {"max_uses": 1, "uses": 1}
    codes = {
        CodeStatus.EXHAUSTED: await store_code(store, ann, enabled=False, **spent),
        CodeStatus.EXPIRED: await store_code(store, ann, enabled=False, expires_at=NOW),
        CodeStatus.INACTIVE: await store_code(store, ann, enabled=False),
        CodeStatus.ACTIVE: await store_code(store, ann),
    }
    deleted = await store_code(store, ann, enabled=False)
    async with store.begin() as repositories:
        await repositories.codes.delete(deleted.id, NOW)
    other = await store_code(store, bob)
    newest_first = list(reversed(codes.values()))
    assert await list_codes(store, CodeFilter(user_id=ann.id)) == newest_first
    for status, code in codes.items():
        assert await list_codes(store, CodeFilter(user_id=ann.id, status=status)) == [code]
        listed = await list_codes(store, CodeFilter(status=status))
        assert code in listed
        assert {each.status(NOW) for each in listed} == {status}
    for text in (other.text.lower(), other.text.upper()):
        assert await list_codes(store, CodeFilter(code=text)) == [other]
    assert await list_codes(store, CodeFilter(code=other.text, user_id=ann.id)) == []
    assert await list_codes(store, CodeFilter(code=deleted.text)) == []
    async with store.read() as repositories:
        assert await repositories.code_search.find(other.id) == other
        assert await repositories.code_search.find(deleted.id) is None
        assert await repositories.code_search.find(ann.id) is None


MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
LEFT = (-400 * DAY, -DAY, -HOUR, timedelta(0), MICROSECOND, HOUR, DAY, 364 * DAY)
"""Until the expiry; `NOW` is at noon, so that an hour before and after are the same day."""


async def store_codes_of_each_status(store: Database) -> list[Code]:
    """Store codes, each of its own user, in a mixed order; return those that are not deleted.

    Each kind has codes whose expiry is reported and not; also before it, by a clock that was ahead.
    """
    kept = []
    uses = ({"uses": 5}, {"uses": 1, "max_uses": 2}, {"uses": 2, "max_uses": 2})
    fates = ("none", "reported", "renewed", "deactivated", "deleted")
    kinds = list(itertools.product((True, False), LEFT, uses, fates))
    mixed = [kinds[index * 101 % len(kinds)] for index in range(len(kinds))]
    async with store.begin() as repositories:
        for enabled, left, used, fate in mixed:
            owner = make_user()
            final = make_code(owner, enabled=enabled, expires_at=NOW + left, **used)
            stored = replace(final, expires_at=NOW - 2 * DAY) if fate == "renewed" else final
            await repositories.users.add(owner)
            await repositories.codes.add(stored)
            if fate in {"reported", "renewed", "deactivated"}:
                await repositories.codes.report_expiry(stored.id)
            if fate == "deactivated":
                final = final.deactivated()
            if fate == "deleted":
                await repositories.codes.delete(stored.id, NOW)
            else:
                await repositories.codes.save(final)
                kept.append(final)
    return kept


@pytest.mark.parametrize("neighbours", [0, 5, codes_by_status.NEIGHBOURS])
async def test_codes_of_a_status_are_complete(
    store: Database, monkeypatch: pytest.MonkeyPatch, neighbours: int
) -> None:
    """Newest first, whether found among the neighbours in the list, or by the days of expiry."""
    monkeypatch.setattr(codes_by_status, "NEIGHBOURS", neighbours)
    codes = await store_codes_of_each_status(store)
    ids = {code.id for code in codes}
    newest_first = sorted(codes, key=lambda code: code.id, reverse=True)
    for status in CodeStatus:
        listed = await list_codes(store, CodeFilter(status=status))
        assert {code.status(NOW) for code in listed} == {status}
        assert listed == sorted(listed, key=lambda code: code.id, reverse=True)
        own = [code for code in listed if code.id in ids]
        assert own == [code for code in newest_first if code.status(NOW) is status]


def record_of(referral: Referral, referred: User) -> ReferralRecord:
    """Return the record of a referral."""
    return ReferralRecord(
        referral_id=referral.id,
        referrer_id=referral.referrer_id,
        id=referred.id,
        email=referred.email,
        status=referral.status,
        code=referral.code,
        joined_at=referral.joined_at,
        held=referral.held,
        reason=referral.reason,
    )


FILTERS: dict[str, Any] = {
    "status": ReferralStatus.PENDING,
    "code": "first",
    "since": NOW + MINUTE,
    "until": NOW + 3 * MINUTE,
    "held": True,
}


@pytest.mark.parametrize(
    "names",
    [names for count in range(6) for names in itertools.combinations(FILTERS, count)],
    ids=lambda names: "+".join(names) or "none",
)
async def test_referrals_meet_every_filter(store: Database, names: tuple[str, ...]) -> None:
    """They are listed by the time of joining, newest first, whatever their ids are."""
    ann = await store_user(store)
    codes = {
        "first": await store_code(store, ann),
        "second": await store_code(store, ann, enabled=False),
    }
    expected = []
    kinds = itertools.product(codes, (True, False), (ReferralStatus.PENDING, *[]))
    rows = [
        *kinds,
        ("first", False, ReferralStatus.CONFIRMED),
        ("first", False, ReferralStatus.REJECTED),
    ]
    for minute in (4, 0, 3, 1, 2):
        for name, held, status in rows:
            at = NOW + minute * MINUTE
            referral, referred = await store_referral(
                store, codes[name], held=held, status=status, joined_at=at, reason="Why."
            )
            meets = {
                "status": status is ReferralStatus.PENDING,
                "code": name == "first",
                "since": minute >= 1,
                "until": minute < 3,
                "held": held,
            }
            if all(meets[each] for each in names):
                expected.append(record_of(referral, referred))
    wanted = {name: FILTERS[name] for name in names} | {"referrer_id": ann.id}
    if "code" in wanted:
        wanted["code"] = codes["first"].text.lower()
    listed = await list_referrals(store, ReferralFilter(**wanted))
    assert listed == sorted(expected, key=lambda each: (each.joined_at, each.referral_id))[::-1]


async def test_referrals_of_all_users_are_listed(store: Database) -> None:
    """Without a filter, and also those that are not held."""
    code = await store_code(store, await store_user(store))
    far = NOW + timedelta(days=4000)
    referral, referred = await store_referral(store, code, joined_at=far)
    record = record_of(referral, referred)
    async with store.read() as repositories:
        assert (
            await repositories.referral_search.list_page(ReferralFilter(), after=None, limit=1)
        ) == [record]
        assert await repositories.referral_search.find(referral.id) == record
        assert await repositories.referral_search.find(code.id) is None
    wanted = ReferralFilter(held=False, since=far)
    assert await list_referrals(store, wanted) == [record]


async def test_referral_without_a_code_and_of_an_erased_user_is_listed(store: Database) -> None:
    """Both are null."""
    ann, bob = await store_user(store), await store_user(store)
    code = await store_code(store, ann)
    referral = replace(make_referral(code, bob), code_id=None, code=None)
    async with store.begin() as repositories:
        await repositories.referrals.add(referral)
        await repositories.users.erase(bob.id, NOW)
    [found] = await list_referrals(store, ReferralFilter(referrer_id=ann.id))
    assert (found.referral_id, found.email, found.code) == (referral.id, None, None)


async def test_decision_is_stored(store: Database) -> None:
    """With its reason and time; the referral is not held any more, and others stay."""
    code = await store_code(store, await store_user(store))
    held, _ = await store_referral(store, code, held=True, status=ReferralStatus.PENDING)
    other, _ = await store_referral(store, code, held=True, status=ReferralStatus.PENDING)
    decided = replace(
        held, status=ReferralStatus.REJECTED, reason="Spam.", decided_at=NOW + HOUR, held=False
    )
    async with store.begin() as repositories:
        assert await repositories.referrals.lock(held.id) == held
        await repositories.referrals.save_decision(decided)
    async with store.begin() as repositories:
        assert await repositories.referrals.lock(held.id) == decided
        assert await repositories.referrals.lock(other.id) == other
        assert await repositories.referrals.lock(code.id) is None


async def test_held_referral_is_not_overdue(store: Database) -> None:
    """However long it waits."""
    code = await store_code(store, await store_user(store))
    long_ago = NOW - timedelta(days=5000)
    changed = {"status": ReferralStatus.PENDING, "joined_at": long_ago}
    await store_referral(store, code, held=True, **changed)
    waiting, _ = await store_referral(store, code, **changed)
    async with store.begin() as repositories:
        overdue = await repositories.referrals.lock_overdue(long_ago)
        assert overdue is not None
        assert overdue.id == waiting.id
        await repositories.referrals.set_status(waiting.id, ReferralStatus.REJECTED, NOW)
    async with store.begin() as repositories:
        assert await repositories.referrals.lock_overdue(long_ago) is None


async def test_use_is_restored(store: Database) -> None:
    """Beyond the maximum, and of a deleted code, which is not returned."""
    ann = await store_user(store)
    code = await store_code(store, ann, max_uses=1, uses=1)
    async with store.begin() as repositories:
        assert await repositories.codes.restore_use(code.id) == replace(code, uses=2)
        await repositories.codes.delete(code.id, NOW)
        assert await repositories.codes.restore_use(code.id) is None
        reverted = [await repositories.codes.revert_use(code.id, NOW) for _ in range(3)]
    assert reverted == [None] * 3


async def test_referrals_without_a_code_count(store: Database) -> None:
    """Unless they are rejected."""
    ann = await store_user(store)
    code = await store_code(store, ann, uses=2)
    for status in ReferralStatus:
        bob = await store_user(store)
        referral = replace(make_referral(code, bob), code_id=None, code=None, status=status)
        async with store.begin() as repositories:
            await repositories.referrals.add(referral)
    async with store.read() as repositories:
        details = await repositories.user_directory.find(ann.id)
    assert details is not None
    assert details.referral_count == 4
