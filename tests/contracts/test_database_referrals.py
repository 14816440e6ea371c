"""The port `ReferralRepository`."""

from dataclasses import replace
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.codes import Code
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import AlreadyReferred
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import (
    ID_GENERATOR,
    NOW,
    make_referral,
    make_user,
    store_code,
    store_referral,
    store_user,
)


@pytest.fixture
async def ann(store: Database) -> User:
    """A user."""
    return await store_user(store)


@pytest.fixture
async def code(store: Database, ann: User) -> Code:
    """A code of Ann's."""
    return await store_code(store, ann)


async def newest(
    store: Database,
    user_id: UUID,
    *,
    status: ReferralStatus | None = None,
    after: UUID | None = None,
    limit: int = 20,
) -> list[ReferralListItem]:
    """List a user's referrals."""
    async with store.read() as repositories:
        return await repositories.referrals.list_page(
            user_id, status=status, after=after, limit=limit
        )


async def test_stored_referral_is_listed(store: Database, ann: User, code: Code) -> None:
    """With the referred user's id and e-mail address as typed; that user's referrer is found."""
    referral, bob = await store_referral(store, replace(code, text="Old-Wording"))
    assert await newest(store, ann.id) == [
        ReferralListItem(referral.id, bob.id, bob.email, referral.status, "Old-Wording", NOW)
    ]
    async with store.read() as repositories:
        assert await repositories.referrals.find_by_referred(bob.id) == referral


async def test_user_without_referrals_or_referrer(
    store: Database, read_model: ReadModel, ann: User
) -> None:
    """The list is empty, the count is zero, and no referrer is shown."""
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert (account.referrer, account.referral_count) == (None, 0)
    assert await newest(store, ann.id) == []


async def test_referral_count_is_the_sum_of_uses(
    store: Database, read_model: ReadModel, ann: User, code: Code
) -> None:
    """Over all codes of the user, including deleted ones."""
    async with store.begin() as repositories:
        for _ in range(2):
            await repositories.codes.count_use(code.id, NOW)
        await repositories.codes.delete(code.id, NOW)
    other = await store_code(store, ann)
    await store_code(store, await store_user(store), uses=5)
    async with store.begin() as repositories:
        await repositories.codes.count_use(other.id, NOW)
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert account.referral_count == 3


async def test_user_has_one_referrer(store: Database, code: Code) -> None:
    """A second referral of the same user is rejected, and the first stays."""
    first, bob = await store_referral(store, code)
    other = await store_code(store, await store_user(store))
    for duplicate in (make_referral(code, bob), make_referral(other, bob)):
        with pytest.raises(AlreadyReferred):
            await add(store, duplicate)
    async with store.read() as repositories:
        assert await repositories.referrals.find_by_referred(bob.id) == first


async def test_self_referral_is_rejected(store: Database, ann: User, code: Code) -> None:
    """A constraint of the table rejects it."""
    with pytest.raises(IntegrityConstraintViolationError):
        await add(store, make_referral(code, ann))
    assert await newest(store, ann.id) == []


async def test_referral_needs_existing_users_and_code(store: Database, code: Code) -> None:
    """Unknown users and codes are rejected."""
    bob = await store_user(store)
    for invalid in (
        make_referral(code, make_user()),
        make_referral(code, bob, referrer_id=ID_GENERATOR.new()),
        make_referral(code, bob, code_id=ID_GENERATOR.new()),
    ):
        with pytest.raises(IntegrityConstraintViolationError):
            await add(store, invalid)
    async with store.read() as repositories:
        assert await repositories.referrals.find_by_referred(bob.id) is None


async def test_referrals_are_listed_newest_first(store: Database, ann: User, code: Code) -> None:
    """Pages follow each other by the referral's id, without a gap or a repeat."""
    stored = [(await store_referral(store, code))[0].id for _ in range(5)]
    await store_referral(store, await store_code(store, await store_user(store)))
    pages: list[list[UUID]] = []
    after: UUID | None = None
    for _ in range(4):
        page = await newest(store, ann.id, after=after, limit=2)
        pages.append([joined.referral_id for joined in page])
        after = page[-1].referral_id if page else None
    assert pages == [stored[:2:-1], stored[2:0:-1], stored[:1], []]


async def test_referrals_are_filtered_by_status(store: Database, ann: User, code: Code) -> None:
    """Pages continue within the filter."""
    stored = {
        status: [(await store_referral(store, code, status=status))[0].id for _ in range(3)]
        for status in ReferralStatus
    }
    for status, ids in stored.items():
        listed = await newest(store, ann.id, status=status, limit=2)
        assert [joined.referral_id for joined in listed] == ids[:0:-1]
        assert {joined.status for joined in listed} == {status}
        rest = await newest(store, ann.id, status=status, after=ids[1], limit=2)
        assert [joined.referral_id for joined in rest] == ids[:1]


async def add(store: Database, referral: Referral) -> None:
    """Store a referral."""
    async with store.begin() as repositories:
        await repositories.referrals.add(referral)
