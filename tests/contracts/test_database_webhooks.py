"""The ports `WebhookRepository` and `ReplayRepository`."""

from dataclasses import replace

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.webhook_deliveries import Replay
from referral.core.entities.webhooks import DisabledReason, Webhook
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, make_webhook, store_webhook


async def find(store: Database, webhook: Webhook) -> Webhook | None:
    """Return the stored webhook."""
    async with store.read() as repositories:
        return await repositories.webhooks.find(webhook.id)


async def test_webhook_is_stored_with_all_fields(store: Database) -> None:
    """Those that may be missing, too."""
    plain = await store_webhook(store, description=None)
    full = await store_webhook(
        store,
        events=("code.*", "referral.confirmed"),
        enabled=False,
        disabled_reason=DisabledReason.GONE,
        previous_secret=b"older",
        previous_secret_until=NOW,
        failing_since=NOW,
    )
    assert await find(store, plain) == plain
    assert await find(store, full) == full
    assert await find(store, make_webhook()) is None


async def test_locked_webhook_is_saved(store: Database) -> None:
    """All but its id and the time of its creation."""
    webhook, other = await store_webhook(store), await store_webhook(store)
    changed = replace(
        webhook,
        url="https://other.example/",
        events=("code.*",),
        description=None,
        enabled=False,
        disabled_reason=DisabledReason.FAILING,
        secret=b"newer",
        previous_secret=b"encrypted",
        previous_secret_until=NOW,
        failing_since=NOW,
        succeeded_attempts=2**40,
        failed_attempts=1,
    )
    async with store.begin() as repositories:
        assert await repositories.webhooks.lock(webhook.id) == webhook
        await repositories.webhooks.save(replace(changed, created_at=NOW + HOUR))
    assert await find(store, webhook) == changed
    assert await find(store, other) == other
    async with store.begin() as repositories:
        assert await repositories.webhooks.lock(ID_GENERATOR.new()) is None


async def test_enabled_webhook_has_no_reason(store: Database) -> None:
    """A constraint ensures it."""
    webhook = make_webhook(disabled_reason=DisabledReason.GONE)
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.webhooks.add(webhook)


async def test_enabled_webhooks_are_locked_in_order(store: Database) -> None:
    """Disabled ones are left out."""
    first, off, last = [await store_webhook(store, enabled=each) for each in (True, False, True)]
    async with store.begin() as repositories:
        enabled = await repositories.webhooks.lock_enabled()
    assert [each for each in enabled if each.id in {first.id, off.id, last.id}] == [first, last]


async def test_webhooks_are_listed_newest_first(store: Database) -> None:
    """In pages."""
    old, middle, new = [await store_webhook(store) for _ in range(3)]
    async with store.read() as repositories:
        assert await repositories.webhooks.list_page(after=None, limit=2) == [new, middle]
        assert await repositories.webhooks.list_page(after=middle.id, limit=1) == [old]


async def test_webhook_is_removed_once(store: Database) -> None:
    """Others stay."""
    webhook, other = await store_webhook(store), await store_webhook(store)
    for removed in (True, False):
        async with store.begin() as repositories:
            assert await repositories.webhooks.remove(webhook.id) is removed
    assert await find(store, webhook) is None
    assert await find(store, other) == other


async def test_replay_keeps_its_progress(store: Database) -> None:
    """Until it is removed."""
    types = ("code.created", "code.deleted")
    replay = Replay(ID_GENERATOR.new(), ID_GENERATOR.new(), types, NOW, NOW + HOUR)
    async with store.begin() as repositories:
        await repositories.replays.add(replay)
        assert await repositories.replays.lock(replay.id) == replay
        replay = replace(replay, after_occurred_at=NOW, after_event_id=ID_GENERATOR.new())
        await repositories.replays.save(replay)
    async with store.begin() as repositories:
        assert await repositories.replays.lock(replay.id) == replay
        await repositories.replays.remove(replay.id)
        assert await repositories.replays.lock(replay.id) is None
