"""The statements of the port `CodeRepository` agree with `Code.status`."""

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from referral.core.entities.codes import Code, CodeStatus
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import NOW, store_code, store_user

MICROSECOND = timedelta(microseconds=1)
ENABLED = (True, False)
LEFT = (-MICROSECOND, timedelta(0), MICROSECOND)
USED = ((0, None), (5, None), (1, 2), (2, 2), (3, 2))
"""Uses and maximum of uses."""

COMBINATIONS = [
    {"enabled": enabled, "expires_at": NOW + left, "uses": uses, "max_uses": max_uses}
    for enabled, left, (uses, max_uses) in product(ENABLED, LEFT, USED)
]


@pytest.fixture(params=COMBINATIONS, ids=lambda each: "-".join(map(str, each.values())))
async def code(store: Database, request: pytest.FixtureRequest) -> Code:
    """The only code of a user, in each combination."""
    state: dict[str, Any] = request.param
    return await store_code(store, await store_user(store), **state)


async def test_status_filter_matches_the_entity(store: Database, code: Code) -> None:
    """A list filtered by a status holds the code if and only if `Code.status` returns it."""
    async with store.read() as repositories:
        listed = [
            status
            for status in CodeStatus
            if await repositories.codes.list_page(
                code.user_id, NOW, status=status, after=None, limit=9
            )
        ]
    assert listed == [code.status(NOW)]


async def test_active_code_matches_the_entity(
    store: Database, read_model: ReadModel, code: Code
) -> None:
    """Each query finds the code if and only if it `is_active`."""
    expected = code if code.is_active(NOW) else None
    async with store.read() as repositories:
        owner = await repositories.users.find(code.user_id)
        assert owner is not None
        assert await repositories.codes.find_active(code.user_id, NOW) == expected
        found = await read_model.find_code(owner.email_key, confirmed_only=False)
    assert (found if found and found.is_active(NOW) else None) == expected


async def test_use_is_counted_for_an_active_code(store: Database, code: Code) -> None:
    """A use is counted if and only if the code `is_active`."""
    async with store.begin() as repositories:
        counted = await repositories.codes.count_use(code.id, NOW)
        stored = await repositories.codes.find(code.user_id, code.id)
    assert counted is code.is_active(NOW)
    assert stored == replace(code, uses=code.uses + counted)


async def test_only_unusable_codes_are_retired(store: Database, code: Code) -> None:
    """A code that `is_active` stays enabled, any other is disabled."""
    async with store.begin() as repositories:
        await repositories.codes.retire(code.user_id, only_spent_at=NOW)
        stored = await repositories.codes.find(code.user_id, code.id)
    assert stored == replace(code, enabled=code.is_active(NOW))
