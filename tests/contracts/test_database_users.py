"""The ports `UserRepository` and `ClientRepository`."""

import asyncio
from dataclasses import replace

import pytest

from referral.core.entities.clients import Client, Scope
from referral.core.entities.users import Locale, Role, User
from referral.core.errors import EmailTaken, ExternalIdTaken
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    ID_GENERATOR,
    NOW,
    make_code,
    make_user,
    store_user,
)


@pytest.mark.parametrize(
    "user",
    [
        make_user(),
        make_user(role=Role.ADMIN, locale=Locale.RU, email_verified=True),
        make_user(notify_on_referral=False, email="Жанна+тег'@bücher.example"),
    ],
    ids=["usual", "admin", "letters"],
)
async def test_stored_account_is_found(store: Database, user: User) -> None:
    """By its id and its canonical e-mail address; every field is unchanged."""
    async with store.begin() as repositories:
        await repositories.users.add(user)
        assert await repositories.users.lock(user.id) == user
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) == user
        assert await repositories.users.find_by_email(user.email_key) == user


async def test_unknown_account_is_not_found(store: Database) -> None:
    """The address as typed is not a key."""
    user = await store_user(store)
    async with store.begin() as repositories:
        assert await repositories.users.find(ID_GENERATOR.new()) is None
        assert await repositories.users.lock(ID_GENERATOR.new()) is None
        assert await repositories.users.find_by_email(user.email) is None


async def test_canonical_email_is_unique(store: Database) -> None:
    """A second account is rejected, however the address was typed; the first stays."""
    user = await store_user(store)
    with pytest.raises(EmailTaken) as raised:
        await store_user(store, email="other@example.com", email_key=user.email_key)
    assert raised.value.field == "email"
    async with store.read() as repositories:
        assert await repositories.users.find_by_email(user.email_key) == user


async def test_concurrent_accounts_with_one_email(store: Database) -> None:
    """Of ten concurrent registrations of an address, one succeeds."""
    email_key = make_user().email_key
    additions = [store_user(store, email_key=email_key) for _ in range(10)]
    results = await asyncio.gather(*additions, return_exceptions=True)
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, EmailTaken) for result in results) == 9


async def test_account_lock_serializes_changes(store: Database) -> None:
    """Ten concurrent replacements of the active code do not conflict."""
    user = await store_user(store)

    async def replace_code() -> None:
        async with store.begin() as repositories:
            await repositories.users.lock(user.id)
            await repositories.codes.retire(user.id)
            await repositories.codes.add(make_code(user))

    await asyncio.gather(*(replace_code() for _ in range(10)))
    async with store.read() as repositories:
        codes = await repositories.codes.list_page(
            user.id, user.created_at, status=None, after=None, limit=20
        )
    assert sorted(code.enabled for code in codes) == [False] * 9 + [True]


async def test_saved_account_is_found(store: Database) -> None:
    """Every field but the id and `created_at` can change."""
    user = await store_user(store)
    changed = replace(user, role=Role.ADMIN, password_hash="h", blocked_at=NOW)  # noqa: S106
    async with store.begin() as repositories:
        await repositories.users.save(changed)
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) == changed


async def test_external_id_is_unique(store: Database) -> None:
    """A second account is rejected, when it is created and when it is changed."""
    external_id = f"shop|{ID_GENERATOR.new()}"
    user = await store_user(store, external_id=external_id)
    other = await store_user(store, external_id=external_id.upper())
    with pytest.raises(ExternalIdTaken):
        await store_user(store, external_id=external_id)
    with pytest.raises(ExternalIdTaken):
        async with store.begin() as repositories:
            await repositories.users.save(replace(other, external_id=external_id))
    async with store.read() as repositories:
        assert await repositories.users.find_by_external_id(external_id) == user
        assert await repositories.users.find_by_external_id(f"{external_id}x") is None


async def test_saved_email_is_unique(store: Database) -> None:
    """The address of another account is rejected, and the account keeps its own."""
    user, other = await store_user(store), await store_user(store)
    with pytest.raises(EmailTaken):
        async with store.begin() as repositories:
            await repositories.users.save(replace(user, email_key=other.email_key))
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) == user


async def test_external_id_of_an_erased_account_is_free(store: Database) -> None:
    """The erased account is not found by it."""
    external_id = f"shop|{ID_GENERATOR.new()}"
    user = await store_user(store, external_id=external_id)
    async with store.begin() as repositories:
        await repositories.users.erase(user.id, NOW)
        assert await repositories.users.find_by_external_id(external_id) is None
    await store_user(store, external_id=external_id)


async def test_stored_client_is_found(store: Database) -> None:
    """With its scopes."""
    scopes = frozenset({Scope.CODES_READ, Scope.USERS_READ})
    client = Client(ID_GENERATOR.new(), "shop", b"d" * 32, scopes, NOW)
    async with store.begin() as repositories:
        await repositories.clients.add(client)
    async with store.read() as repositories:
        assert await repositories.clients.find(client.id) == client
        assert await repositories.clients.find(ID_GENERATOR.new()) is None
