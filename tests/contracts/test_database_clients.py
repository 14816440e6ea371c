"""The port `ClientRepository`."""

import asyncio
from dataclasses import replace
from typing import Any

from referral.core.entities.clients import NO_SECRET, Client, Scope
from referral.core.errors import Conflict
from referral.core.ports.repositories import Database
from tests.contracts.rows import ID_GENERATOR, NOW


def make_client(**changed: Any) -> Client:
    """Return a new client."""
    client_id = ID_GENERATOR.new()
    scopes = frozenset({Scope.CODES_READ, Scope.USERS_READ})
    return replace(Client(client_id, f"shop {client_id}", b"1" * 32, scopes, NOW), **changed)


async def add(store: Database, *clients: Client) -> None:
    """Store clients, each in its own transaction."""
    for client in clients:
        async with store.begin() as repositories:
            await repositories.clients.add(client)


async def test_client_is_found_by_id_and_name(store: Database) -> None:
    """Both are exact."""
    shop, other = make_client(), make_client()
    await add(store, shop, other)
    async with store.read() as repositories:
        assert await repositories.clients.find(shop.id) == shop
        assert await repositories.clients.find(ID_GENERATOR.new()) is None
        assert await repositories.clients.find_by_name(shop.name) == shop
        assert await repositories.clients.find_by_name(shop.name.upper()) is None


async def test_redirect_uris_are_stored(store: Database) -> None:
    """In their order; a public client has no secret."""
    uris = ("https://b.example/", "https://a.example/", "com.example.app:/")
    app = make_client(secret_digest=NO_SECRET, scopes=frozenset(), redirect_uris=uris)
    await add(store, app)
    async with store.read() as repositories:
        found = await repositories.clients.find(app.id)
    assert found == app
    assert found.is_public


async def test_clients_are_listed_in_the_order_of_their_names(store: Database) -> None:
    """Capital letters come first, whatever the collation of the database is."""
    key = ID_GENERATOR.new().hex
    names = [f"{key} {name}" for name in ("B", "a", "b")]
    await add(store, *(make_client(name=name) for name in reversed(names)))
    async with store.read() as repositories:
        listed = [client.name for client in await repositories.clients.list_all()]
    assert [name for name in listed if name.startswith(key)] == names


async def test_second_client_of_a_name_is_rejected(store: Database) -> None:
    """One of two concurrent ones is stored; the error names the field."""
    name = f"shop {ID_GENERATOR.new()}"
    rivals = [make_client(name=name), make_client(name=name)]
    results = await asyncio.gather(*(add(store, one) for one in rivals), return_exceptions=True)
    [error] = [result for result in results if result is not None]
    assert isinstance(error, Conflict)
    assert (error.field, name in error.detail) == ("name", True)
    async with store.read() as repositories:
        found = await repositories.clients.find_by_name(name)
        assert found == rivals[results.index(None)]


async def test_secret_is_replaced(store: Database) -> None:
    """Of one client, whose other fields stay."""
    shop, other = make_client(), make_client()
    await add(store, shop, other)
    async with store.begin() as repositories:
        assert await repositories.clients.replace_secret(shop.id, b"2" * 32)
        assert not await repositories.clients.replace_secret(ID_GENERATOR.new(), b"3" * 32)
    async with store.read() as repositories:
        assert await repositories.clients.find(shop.id) == replace(shop, secret_digest=b"2" * 32)
        assert await repositories.clients.find(other.id) == other


async def test_client_is_removed_once(store: Database) -> None:
    """Other clients stay, and the name is free again."""
    shop, other = make_client(), make_client()
    await add(store, shop, other)
    for removed in (True, False):
        async with store.begin() as repositories:
            assert await repositories.clients.remove(shop.id) is removed
    await add(store, make_client(name=shop.name))
    async with store.read() as repositories:
        assert await repositories.clients.find(shop.id) is None
        assert await repositories.clients.find(other.id) == other
