"""The port `DeliveryRepository`."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus
from referral.core.entities.webhooks import Webhook
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    make_delivery,
    make_webhook,
    store_delivery,
    store_webhook,
)

SECOND = timedelta(seconds=1)
PENDING, SUCCEEDED, FAILED = DeliveryStatus
ENDED: dict[str, Any] = {"status": FAILED, "scheduled_for": None}


async def find(store: Database, delivery: Delivery) -> Delivery | None:
    """Return the stored delivery."""
    async with store.read() as repositories:
        return await repositories.deliveries.find(delivery.webhook_id, delivery.id)


async def due(store: Database, webhook: Webhook, limit: int = 10) -> list[UUID]:
    """Return the ids of a webhook's due deliveries."""
    async with store.read() as repositories:
        found = await repositories.deliveries.list_due(webhook.id, NOW, limit)
    return [each.delivery.id for each in found]


async def due_webhooks(store: Database, *webhooks: Webhook) -> list[UUID]:
    """Return which of the webhooks have due deliveries, in the order of the port."""
    own = {webhook.id for webhook in webhooks}
    async with store.read() as repositories:
        found = await repositories.deliveries.list_due_webhooks(NOW)
    return [webhook_id for webhook_id in found if webhook_id in own]


async def test_deliveries_are_stored_in_batches(store: Database) -> None:
    """However many there are; a delivery is found for its own webhook only."""
    webhook = make_webhook()
    deliveries = [make_delivery(webhook) for _ in range(4001)]
    async with store.begin() as repositories:
        await repositories.deliveries.add(deliveries)
        await repositories.deliveries.add([])
    async with store.read() as repositories:
        stored = await repositories.deliveries.list_page(
            webhook.id, status=None, after=None, limit=5000
        )
    assert {each.id for each in stored} == {each.id for each in deliveries}
    for delivery in (deliveries[0], deliveries[-1]):
        assert await find(store, delivery) == delivery
        assert await find(store, replace(delivery, webhook_id=ID_GENERATOR.new())) is None


async def test_locked_deliveries_are_saved(store: Database) -> None:
    """What a delivery is of never changes; missing ones are left out."""
    webhook = make_webhook()
    first, second, other = [await store_delivery(store, webhook) for _ in range(3)]
    changed = replace(
        first,
        status=FAILED,
        attempts=11,
        scheduled_failures=10,
        scheduled_for=None,
        retry_requested_at=NOW,
        response_status=503,
        response_body="Try later",
        error="HTTP 503",
    )
    later = replace(second, scheduled_for=NOW + HOUR)
    ids = [second.id, ID_GENERATOR.new(), first.id]
    async with store.begin() as repositories:
        assert await repositories.deliveries.lock(ids) == [first, second]
        await repositories.deliveries.save([later, replace(changed, event_id=webhook.id)])
    assert [await find(store, each) for each in (first, second, other)] == [changed, later, other]


@pytest.mark.parametrize(
    "changed", [{"status": SUCCEEDED}, {"status": FAILED}, {"scheduled_for": None}]
)
async def test_only_pending_deliveries_are_scheduled(
    store: Database, changed: dict[str, Any]
) -> None:
    """A constraint ensures it."""
    with pytest.raises(IntegrityConstraintViolationError):
        await store_delivery(store, make_webhook(), **changed)


async def test_due_deliveries_come_with_the_data_of_their_events(store: Database) -> None:
    """The longest due first, by the schedule or by hand."""
    webhook = await store_webhook(store)
    late = await store_delivery(store, webhook, scheduled_for=NOW)
    early = await store_delivery(store, webhook, scheduled_for=NOW - HOUR)
    await store_delivery(store, webhook, scheduled_for=NOW + SECOND)
    by_hand = await store_delivery(
        store, webhook, scheduled_for=NOW + HOUR, retry_requested_at=NOW - SECOND
    )
    again = await store_delivery(
        store, webhook, status=SUCCEEDED, scheduled_for=None, retry_requested_at=NOW - 2 * SECOND
    )
    await store_delivery(store, webhook, **ENDED)
    assert await due(store, webhook) == [early.id, again.id, by_hand.id, late.id]
    assert await due(store, webhook, limit=1) == [early.id]
    async with store.read() as repositories:
        [first] = await repositories.deliveries.list_due(webhook.id, NOW, 1)
        [second] = await repositories.deliveries.list_due(webhook.id, NOW, 1, without=[early.id])
    assert second.delivery == again
    assert (first.delivery, first.data) == (early, {"id": str(early.id)})


async def test_webhooks_with_due_deliveries_are_found(store: Database) -> None:
    """The longest waiting first; neither disabled nor deleted ones."""
    waiting, late, off, idle = [
        await store_webhook(store, enabled=each) for each in (True, True, False, True)
    ]
    for _ in range(3):
        await store_delivery(store, late)
    for webhook in (waiting, off, make_webhook()):
        await store_delivery(store, webhook, scheduled_for=NOW - HOUR)
    await store_delivery(store, idle, scheduled_for=NOW + SECOND)
    assert await due_webhooks(store, waiting, late, off, idle) == [waiting.id, late.id]
    assert await due(store, off) == []


async def test_delivery_of_a_deleted_event_is_not_due(store: Database) -> None:
    """It is deleted soon, as its event was."""
    webhook, delivery = await store_webhook(store), make_delivery(make_webhook())
    async with store.begin() as repositories:
        await repositories.deliveries.add([replace(delivery, webhook_id=webhook.id)])
    assert await due(store, webhook) == []


async def test_deliveries_are_listed_newest_first(store: Database) -> None:
    """In pages, of one status or of all."""
    webhook = make_webhook()
    first = await store_delivery(store, webhook)
    second = await store_delivery(store, webhook, **ENDED)
    third = await store_delivery(store, webhook)
    await store_delivery(store, make_webhook())

    async def page(
        status: DeliveryStatus | None, after: UUID | None, limit: int = 9
    ) -> list[Delivery]:
        async with store.read() as repositories:
            return await repositories.deliveries.list_page(
                webhook.id, status=status, after=after, limit=limit
            )

    assert await page(None, None) == [third, second, first]
    assert await page(None, third.id, limit=1) == [second]
    assert await page(PENDING, None) == [third, first]
    assert await page(PENDING, third.id) == [first]
    assert await page(SUCCEEDED, None) == []


async def test_pending_deliveries_fail_and_requested_retries_are_dropped(store: Database) -> None:
    """The error of the last attempt follows the reason; ended deliveries keep their status."""
    webhook = await store_webhook(store)
    untried = await store_delivery(store, webhook)
    tried = await store_delivery(store, webhook, error="HTTP 500", retry_requested_at=NOW)
    retried = await store_delivery(
        store, webhook, status=SUCCEEDED, scheduled_for=None, retry_requested_at=NOW
    )
    other = await store_delivery(store, make_webhook())
    async with store.begin() as repositories:
        assert not await repositories.deliveries.fail_pending(webhook.id, "Disabled.")
    assert [await find(store, each) for each in (untried, tried, retried, other)] == [
        replace(untried, **ENDED, error="Disabled."),
        replace(tried, **ENDED, retry_requested_at=None, error="Disabled. Last attempt: HTTP 500"),
        replace(retried, retry_requested_at=None),
        other,
    ]


async def test_deliveries_are_deleted_with_their_webhook(store: Database) -> None:
    """Not those of others."""
    webhook = make_webhook()
    deliveries = [await store_delivery(store, webhook) for _ in range(2)]
    other = await store_delivery(store, make_webhook())
    async with store.begin() as repositories:
        assert not await repositories.deliveries.delete(webhook.id)
    assert [await find(store, each) for each in (*deliveries, other)] == [None, None, other]


async def test_deliveries_of_old_events_are_pruned(store: Database) -> None:
    """However new the deliveries are."""
    webhook = make_webhook()
    old = await store_delivery(store, webhook, occurred_at=NOW - 720 * HOUR - SECOND)
    kept = await store_delivery(store, webhook, occurred_at=NOW - 720 * HOUR)
    async with store.begin() as repositories:
        assert not await repositories.deliveries.prune(NOW - 720 * HOUR)
    assert [await find(store, each) for each in (old, kept)] == [None, kept]
