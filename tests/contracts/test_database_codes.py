"""The port `CodeRepository`."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from asyncpg import DataError, IntegrityConstraintViolationError

from referral.core.entities.codes import Code
from referral.core.entities.users import User
from referral.core.errors import ActiveCodeExists, CodeTaken
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, make_code, store_code, store_user


@pytest.fixture
async def ann(store: Database) -> User:
    """A user."""
    return await store_user(store)


async def find_stored(store: Database, code: Code) -> Code | None:
    """Return the stored code."""
    async with store.read() as repositories:
        return await repositories.codes.find(code.user_id, code.id)


async def delete(store: Database, code: Code, now: datetime = NOW) -> None:
    """Delete a code."""
    async with store.begin() as repositories:
        await repositories.codes.delete(code.id, now)


@pytest.mark.parametrize("limit", [None, 1, 2_147_483_647])
async def test_stored_code_is_found(
    store: Database, read_model: ReadModel, ann: User, limit: int | None
) -> None:
    """By its id, its text in any case, and its owner; every field is unchanged."""
    code = await store_code(store, ann, max_uses=limit)
    async with store.begin() as repositories:
        codes = repositories.codes
        assert await codes.find(ann.id, code.id) == code
        assert await codes.lock(ann.id, code.id) == code
        for text in (code.text, code.text.upper(), code.text.lower()):
            assert await read_model.find_code_by_text(text) == code
            assert await codes.lock_enabled_by_text(text) == code
        assert await codes.find_active(ann.id, NOW) == code
        assert await read_model.find_code(ann.email_key, confirmed_only=False) == code


async def test_code_is_found_for_its_owner_only(
    store: Database, read_model: ReadModel, ann: User
) -> None:
    """Another user does not find it, and an unknown key finds nothing."""
    code = await store_code(store, ann)
    bob = await store_user(store)
    async with store.begin() as repositories:
        codes = repositories.codes
        for user_id, code_id in ((bob.id, code.id), (ann.id, ID_GENERATOR.new())):
            assert await codes.find(user_id, code_id) is None
            assert await codes.lock(user_id, code_id) is None
        assert await codes.find_active(bob.id, NOW) is None
        assert await read_model.find_code(bob.email_key, confirmed_only=False) is None
        assert await read_model.find_code("nobody@example.com", confirmed_only=False) is None
        assert await codes.list_page(bob.id, NOW, status=None, after=None, limit=9) == []
        assert await read_model.find_code_by_text("NEVER-MADE") is None
        assert await codes.lock_enabled_by_text("NEVER-MADE") is None


async def test_query_for_a_text_with_a_nul_fails(store: Database) -> None:
    """PostgreSQL cannot store such a text; callers validate it first."""
    with pytest.raises(DataError):
        async with store.begin() as repositories:
            await repositories.codes.lock_enabled_by_text("ANN\0-2026")


async def test_code_text_is_unique(store: Database, ann: User) -> None:
    """In any case, for any user, and whether the first code is enabled or not."""
    first = await store_code(store, ann, enabled=False)
    bob = await store_user(store)
    for owner in (ann, bob):
        for text in (first.text, first.text.upper(), first.text.lower()):
            with pytest.raises(CodeTaken) as raised:
                await store_code(store, owner, text=text)
            assert raised.value.field == "code"


async def test_taken_text_is_reported_before_an_active_code(store: Database, ann: User) -> None:
    """If both conflict, the error names the text, which the owner has to change."""
    code = await store_code(store, ann)
    with pytest.raises(CodeTaken):
        await store_code(store, ann, text=code.text)


async def test_user_has_one_enabled_code(store: Database, ann: User) -> None:
    """A second enabled code is rejected; a disabled one and another user's are accepted."""
    await store_code(store, ann)
    with pytest.raises(ActiveCodeExists):
        await store_code(store, ann)
    await store_code(store, ann, enabled=False)
    await store_code(store, await store_user(store))


async def test_update_cannot_enable_a_second_code(store: Database, ann: User) -> None:
    """The constraint holds for updates as well."""
    await store_code(store, ann)
    second = await store_code(store, ann, enabled=False)
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.codes.save(replace(second, enabled=True))
    assert await find_stored(store, second) == second


@pytest.mark.parametrize("max_uses", [0, -1])
async def test_maximum_is_positive(store: Database, ann: User, max_uses: int) -> None:
    """A code that could never be used is not stored."""
    code = await store_code(store, ann)
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.codes.save(replace(code, max_uses=max_uses))
    assert await find_stored(store, code) == code


async def test_deleted_code_is_not_found(store: Database, read_model: ReadModel, ann: User) -> None:
    """No query finds it, no use is counted, and its text stays taken."""
    code = await store_code(store, ann)
    await delete(store, code)
    async with store.begin() as repositories:
        codes = repositories.codes
        assert await codes.find(ann.id, code.id) is None
        assert await codes.lock(ann.id, code.id) is None
        assert await read_model.find_code_by_text(code.text) is None
        assert await codes.lock_enabled_by_text(code.text) is None
        assert await codes.find_active(ann.id, NOW) is None
        assert await read_model.find_code(ann.email_key, confirmed_only=False) is None
        assert await codes.list_page(ann.id, NOW, status=None, after=None, limit=9) == []
        assert not await codes.count_use(code.id, NOW)
    with pytest.raises(CodeTaken):
        await store_code(store, ann, text=code.text.lower())
    await store_code(store, ann)


async def test_deleted_code_cannot_be_enabled(store: Database, ann: User) -> None:
    """Not even by a transaction that read it before."""
    code = await store_code(store, ann)
    await delete(store, code)
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.codes.save(code)


async def test_disabled_code_is_not_usable(
    store: Database, read_model: ReadModel, ann: User
) -> None:
    """It is found by its text, but cannot be used at registration."""
    code = await store_code(store, ann, enabled=False)
    async with store.begin() as repositories:
        assert await read_model.find_code_by_text(code.text) == code
        assert await repositories.codes.lock_enabled_by_text(code.text) is None
        assert not await repositories.codes.count_use(code.id, NOW)


async def test_code_of_a_blocked_user_is_not_found(
    store: Database, read_model: ReadModel, ann: User
) -> None:
    """Neither by e-mail address, though cached, nor by its text; unblocking reverts this."""
    code = await store_code(store, ann)
    async with store.begin() as repositories:
        await repositories.users.save(replace(ann, blocked_at=NOW))
    assert await read_model.find_code(ann.email_key, confirmed_only=False) is None
    async with store.begin() as repositories:
        assert await read_model.find_code_by_text(code.text) is None
        assert not await repositories.codes.count_use(code.id, NOW)
    assert await find_stored(store, code) == code
    async with store.begin() as repositories:
        await repositories.users.save(ann)
    assert await read_model.find_code(ann.email_key, confirmed_only=False) == code
    async with store.begin() as repositories:
        assert await read_model.find_code_by_text(code.text) == code
        assert await repositories.codes.count_use(code.id, NOW)


async def test_update_stores_expiry_maximum_and_enabled(store: Database, ann: User) -> None:
    """It does not overwrite the count of uses, which may have changed concurrently."""
    code = await store_code(store, ann)
    async with store.begin() as repositories:
        assert await repositories.codes.count_use(code.id, NOW)
        changed = replace(code, expires_at=NOW + 2 * HOUR, max_uses=7, enabled=False)
        await repositories.codes.save(changed)
    assert await find_stored(store, code) == replace(changed, uses=1)


async def test_uses_are_counted_up_to_the_maximum(store: Database, ann: User) -> None:
    """The use after the last one is rejected."""
    code = await store_code(store, ann, max_uses=2)
    for uses in (1, 2):
        async with store.begin() as repositories:
            assert await repositories.codes.count_use(code.id, NOW)
        assert await find_stored(store, code) == replace(code, uses=uses)
    async with store.begin() as repositories:
        assert not await repositories.codes.count_use(code.id, NOW)
    assert await find_stored(store, code) == replace(code, uses=2)


async def test_concurrent_uses(store: Database, ann: User) -> None:
    """Of ten concurrent uses with three left, three are counted."""
    code = await store_code(store, ann, max_uses=3)

    async def use() -> bool:
        async with store.begin() as repositories:
            return await repositories.codes.count_use(code.id, NOW)

    assert sum(await asyncio.gather(*(use() for _ in range(10)))) == 3
    assert await find_stored(store, code) == replace(code, uses=3)


async def test_lock_prevents_lost_updates(store: Database, ann: User) -> None:
    """Ten concurrent increments of the maximum raise it by ten."""
    code = await store_code(store, ann, max_uses=1)

    async def raise_maximum() -> None:
        async with store.begin() as repositories:
            locked = await repositories.codes.lock(ann.id, code.id)
            assert locked is not None
            await repositories.codes.save(replace(locked, max_uses=(locked.max_uses or 0) + 1))

    await asyncio.gather(*(raise_maximum() for _ in range(10)))
    assert await find_stored(store, code) == replace(code, max_uses=11)


async def test_retiring_disables_the_code_of_the_user(store: Database, ann: User) -> None:
    """Codes of other users stay enabled."""
    code = await store_code(store, ann)
    other = await store_code(store, await store_user(store))
    async with store.begin() as repositories:
        await repositories.codes.retire(ann.id)
    assert await find_stored(store, code) == replace(code, enabled=False)
    assert await find_stored(store, other) == other


async def test_codes_are_listed_newest_first(store: Database, ann: User) -> None:
    """Pages follow each other by id, without a gap or a repeat."""
    codes = [await store_code(store, ann, enabled=False) for _ in range(5)]
    await delete(store, codes.pop(1))
    await store_code(store, await store_user(store))
    pages: list[list[Code]] = []
    after: UUID | None = None
    for _ in range(3):
        async with store.read() as repositories:
            page = await repositories.codes.list_page(
                ann.id, NOW, status=None, after=after, limit=2
            )
        pages.append(page)
        after = page[-1].id if page else None
    assert pages == [codes[:1:-1], codes[1::-1], []]


async def test_codes_are_ordered_by_id(store: Database, ann: User) -> None:
    """Neither by the order of insertion nor by `created_at`."""
    older, newer = make_code(ann, enabled=False), make_code(ann, enabled=False)
    newer = replace(newer, created_at=NOW - timedelta(days=1))
    async with store.begin() as repositories:
        await repositories.codes.add(newer)
        await repositories.codes.add(older)
        listed = await repositories.codes.list_page(ann.id, NOW, status=None, after=None, limit=9)
    assert listed == [newer, older]
