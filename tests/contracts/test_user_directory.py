"""The port `UserDirectory`."""

from dataclasses import replace
from typing import Any

import pytest

from referral.core.entities.account_view import UserDetails, UserFilter
from referral.core.entities.users import Referrer, Role, User
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    ID_GENERATOR,
    NOW,
    make_referral,
    store_code,
    store_referral,
    store_user,
)


async def test_user_is_found_with_referrer_and_count(store: Database) -> None:
    """By its id and its external id; the count is the sum of the uses of all codes."""
    eve = await store_user(store)
    ann = await store_user(store, external_id=f"shop|{ID_GENERATOR.new()}")
    eves = await store_code(store, eve, uses=1)
    await store_code(store, ann, uses=2, enabled=False)
    await store_code(store, ann, uses=3)
    async with store.begin() as repositories:
        await repositories.referrals.add(make_referral(eves, ann))
        expected = UserDetails(ann, Referrer(eve.id, eve.email), 5)
        directory = repositories.user_directory
        assert await directory.find(ann.id) == expected
        assert await directory.find_by_external_id(str(ann.external_id)) == expected
        assert await directory.find(eve.id) == UserDetails(eve, None, 1)


async def test_erased_user_is_not_found(store: Database) -> None:
    """Neither by an id nor in a list, and not as a referrer."""
    ann = await store_user(store, external_id=f"shop|{ID_GENERATOR.new()}")
    _, bob = await store_referral(store, await store_code(store, ann))
    async with store.begin() as repositories:
        await repositories.users.erase(ann.id, NOW)
        directory = repositories.user_directory
        assert await directory.find(ann.id) is None
        assert await directory.find_by_external_id(str(ann.external_id)) is None
        everyone = await directory.list_page(UserFilter(), after=None, limit=1)
        assert [each.user for each in everyone] == [bob]
        assert await directory.find(bob.id) == UserDetails(bob, None, 0)


@pytest.fixture
async def users(store: Database) -> list[User]:
    """A user of each kind, oldest first."""
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"role": Role.ADMIN},
        {"blocked_at": NOW},
        {"email_verified": True},
    )
    return [await store_user(store, **kind) for kind in kinds]


@pytest.mark.parametrize(
    ("user_filter", "matching"),
    [
        (UserFilter(), {0, 1, 2, 3}),
        (UserFilter(role=Role.ADMIN), {1}),
        (UserFilter(role=Role.MEMBER), {0, 2, 3}),
        (UserFilter(blocked=True), {2}),
        (UserFilter(blocked=False), {0, 1, 3}),
        (UserFilter(verified=True), {3}),
        (UserFilter(verified=False), {0, 1, 2}),
        (UserFilter(role=Role.MEMBER, blocked=False, verified=False), {0}),
        (UserFilter(role=Role.ADMIN, verified=True), set()),
    ],
)
async def test_list_has_the_users_that_match_every_filter(
    store: Database, users: list[User], user_filter: UserFilter, matching: set[int]
) -> None:
    """Newest first; other tests have stored users too."""
    async with store.read() as repositories:
        listed = await repositories.user_directory.list_page(user_filter, after=None, limit=1000)
    found = [each.user for each in listed if each.user in users]
    assert found == [users[index] for index in sorted(matching, reverse=True)]


async def test_list_by_address(store: Database, users: list[User]) -> None:
    """The canonical address has one user at most."""
    by_address = UserFilter(email_key=users[2].email_key)
    async with store.read() as repositories:
        directory = repositories.user_directory
        (found,) = await directory.list_page(by_address, after=None, limit=9)
        verified = replace(by_address, verified=True)
        assert await directory.list_page(verified, after=None, limit=9) == []
    assert found.user == users[2]


async def test_pages_follow_each_other(store: Database, users: list[User]) -> None:
    """A page begins after the last user of the previous one."""
    async with store.read() as repositories:
        page = await repositories.user_directory.list_page(UserFilter(), after=users[3].id, limit=2)
    assert [each.user for each in page] == [users[2], users[1]]
