"""The port `SigningKeyRegistry`."""

import asyncio
from datetime import timedelta

from referral.core.ports.repositories import Database
from tests.contracts.rows import ID_GENERATOR, NOW

MINUTE = timedelta(minutes=1)


async def report(store: Database, *key_ids: str, minutes: int = 0) -> list[str]:
    """Report keys in a transaction, some minutes after `NOW`."""
    async with store.begin() as repositories:
        return await repositories.signing_keys.report(key_ids, NOW + minutes * MINUTE)


async def remove_unused(store: Database, minutes: int) -> list[str]:
    """Remove the keys that were not reported since some minutes after `NOW`."""
    async with store.begin() as repositories:
        removed = await repositories.signing_keys.remove_unused(NOW + minutes * MINUTE)
    return sorted(removed)


async def test_key_is_new_once(store: Database) -> None:
    """Also after a removal, and whatever other keys are reported with it."""
    first, second = (f"key {ID_GENERATOR.new()}" for _ in range(2))
    await remove_unused(store, 1000)
    assert await report(store, first) == [first]
    assert await report(store, first, second, minutes=1) == [second]
    assert await report(store, first, second, minutes=2) == []
    assert await remove_unused(store, 3) == [first, second]
    assert await remove_unused(store, 3) == []
    assert await report(store, first, minutes=4) == [first]


async def test_reported_key_stays(store: Database) -> None:
    """Keys are removed that no process has reported since a time; the time itself counts."""
    first, second = (f"key {ID_GENERATOR.new()}" for _ in range(2))
    await remove_unused(store, 1000)
    await report(store, first, second)
    await report(store, second, minutes=5)
    assert await remove_unused(store, 5) == [first]


async def test_processes_agree_on_what_is_new(store: Database) -> None:
    """Of concurrent reports, one returns the key."""
    key_id = f"key {ID_GENERATOR.new()}"
    found = await asyncio.gather(*(report(store, key_id) for _ in range(5)))
    assert sorted(found) == [[], [], [], [], [key_id]]
