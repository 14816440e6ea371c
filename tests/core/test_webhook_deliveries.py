"""Use cases of deliveries: lists, retries by hand, replays and the jobs of large numbers."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.events import Event
from referral.core.entities.jobs import (
    DeleteDeliveriesJob,
    FailPendingDeliveriesJob,
    ReplayEventsJob,
)
from referral.core.entities.webhook_deliveries import DeliveryStatus
from referral.core.entities.webhooks import Webhook
from referral.core.errors import (
    InvalidRequest,
    NotFound,
    RescheduleJob,
    Unavailable,
    WebhookDisabled,
)
from referral.core.use_cases import webhook_deliveries
from referral.core.use_cases.job_dispatch import DispatchJob
from referral.core.use_cases.retention import Prune
from referral.core.use_cases.webhook_deliveries import (
    CreateReplayDeliveries,
    DeleteDeliveries,
    FailPendingDeliveries,
    ListDeliveries,
    ReplayEvents,
    RetryDelivery,
)
from referral.core.use_cases.webhooks import DeleteWebhook
from tests.core.service import InMemoryService
from tests.core.test_webhooks import UNKNOWN, create, deliveries, publish, record, update
from tests.support.fakes.webhooks import FakeDeliveryRepository

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def replay(
    service: InMemoryService, webhook: Webhook, since: datetime, until: datetime | None = None
) -> int:
    """Request a replay, and run its job."""
    count = await service.get(ReplayEvents)(OPERATOR, webhook.id, since, until)
    await run_jobs(service)
    return count


async def run_jobs(service: InMemoryService) -> None:
    """Run the jobs in the queue."""
    async with service.database.begin() as repositories:
        jobs = list(repositories.tables.jobs.values())
        repositories.tables.jobs.clear()
    for job in jobs:
        assert isinstance(job, ReplayEventsJob | FailPendingDeliveriesJob | DeleteDeliveriesJob)
        await service.get(DispatchJob)._run_without_context(job)  # noqa: SLF001


async def store_events(service: InMemoryService, types: Sequence[str]) -> list[Event]:
    """Store published events, an hour apart, the last one now."""
    first = service.clock.now() - (len(types) - 1) * HOUR
    events = [
        Event(service.id_generator.new(), each, first + number * HOUR, {})
        for number, each in enumerate(types)
    ]
    async with service.database.begin() as repositories:
        await repositories.events.add(*events)
        await repositories.events.publish(len(events), wait=True)
    return events


async def event_ids(service: InMemoryService, webhook: Webhook) -> list[UUID]:
    """Return the events of a webhook's deliveries, oldest delivery first."""
    return [each.event_id for each in await deliveries(service, webhook)]


async def test_deliveries_are_listed_in_pages(service: InMemoryService) -> None:
    """Newest first, of one status or of all."""
    webhook = await create(service)
    await publish(service, "code.created", "code.deleted")
    first, second = await deliveries(service, webhook)
    await record(service, webhook, first, 200)
    list_deliveries = service.get(ListDeliveries)
    page = await list_deliveries(webhook.id, status=None, after=None, limit=1)
    assert (page.items, page.next_after) == ([second], second.id)
    page = await list_deliveries(webhook.id, status=None, after=second.id, limit=1)
    assert ([each.id for each in page.items], page.next_after) == ([first.id], None)
    done = await list_deliveries(webhook.id, status=DeliveryStatus.SUCCEEDED, after=None, limit=9)
    assert [each.id for each in done.items] == [first.id]
    with pytest.raises(NotFound):
        await list_deliveries(UNKNOWN, status=None, after=None, limit=9)


async def test_retry_is_due_at_once(service: InMemoryService) -> None:
    """Also after success, which a failure does not undo."""
    webhook = await create(service)
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    await record(service, webhook, delivery, 200)
    await service.get(RetryDelivery)(OPERATOR, webhook.id, delivery.id)
    [requested] = await deliveries(service, webhook)
    assert requested.next_attempt_at == service.clock.now()
    await record(service, webhook, requested, 500)
    [failed] = await deliveries(service, webhook)
    assert (failed.status, failed.next_attempt_at) == (DeliveryStatus.SUCCEEDED, None)
    assert (failed.attempts, failed.error) == (2, "HTTP 500")


async def test_unknown_delivery_is_not_retried(service: InMemoryService) -> None:
    """Nor one of another webhook."""
    webhook, other = await create(service), await create(service, "user.*")
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    for webhook_id, delivery_id in (
        (other.id, delivery.id),
        (webhook.id, UNKNOWN),
        (UNKNOWN, delivery.id),
    ):
        with pytest.raises(NotFound):
            await service.get(RetryDelivery)(OPERATOR, webhook_id, delivery_id)
    assert await deliveries(service, webhook) == [delivery]


async def test_replay_delivers_the_events_of_a_time(service: InMemoryService) -> None:
    """Those that the webhook subscribes to, the end excluded, oldest first."""
    events = await store_events(service, ["code.created"] * 3 + ["user.verified", "code.deleted"])
    webhook = await create(service, "code.*")
    since, until = events[1].occurred_at, events[4].occurred_at
    assert await replay(service, webhook, since, until) == 2
    assert await event_ids(service, webhook) == [event.id for event in events[1:3]]
    service.clock.advance(seconds=1)
    assert await replay(service, webhook, since) == 3
    assert (await event_ids(service, webhook))[2:] == [events[n].id for n in (1, 2, 4)]
    async with service.database.read() as repositories:
        assert repositories.tables.replays == {}


async def test_replay_leaves_tests_out(service: InMemoryService) -> None:
    """They are not in the feed."""
    webhook = await create(service)
    await publish(service, "webhook.test")
    service.clock.advance(seconds=1)
    assert await replay(service, webhook, service.clock.now() - DAY) == 0


@pytest.mark.parametrize(("first", "end"), [(0, None), (1, None), (-1, -1), (-1, -2), (2, 1)])
async def test_replay_of_no_time_is_rejected(
    service: InMemoryService, first: int, end: int | None
) -> None:
    """The beginning must be before the end, which is now by default."""
    webhook = await create(service)
    since = service.clock.now() + first * HOUR
    until = None if end is None else service.clock.now() + end * HOUR
    with pytest.raises(InvalidRequest) as raised:
        await service.get(ReplayEvents)(OPERATOR, webhook.id, since, until)
    assert raised.value.field == "since"


async def test_replay_ends_now_at_the_latest(service: InMemoryService) -> None:
    """Later events are delivered anyway. Times that PostgreSQL cannot store are none it gets."""
    webhook = await create(service)
    await store_events(service, ["code.created"] * 2)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert await replay(service, webhook, first, last) == 1
    assert await replay(service, webhook, first, first + DAY) == 0
    assert await replay(service, webhook, last - DAY, last) == 0


async def test_replay_needs_an_enabled_webhook(service: InMemoryService) -> None:
    """A replay that began before ends, and does not go on when the webhook is enabled."""
    await store_events(service, ["code.created"] * 3)
    webhook = await create(service)
    since = service.clock.now() - DAY
    await service.get(ReplayEvents)(OPERATOR, webhook.id, since)
    await update(service, webhook, enabled=False)
    await run_jobs(service)
    with pytest.raises(WebhookDisabled):
        await service.get(ReplayEvents)(OPERATOR, webhook.id, since)
    with pytest.raises(NotFound):
        await service.get(ReplayEvents)(OPERATOR, UNKNOWN, since)
    async with service.database.read() as repositories:
        assert (repositories.tables.replays, repositories.tables.deliveries) == ({}, {})


async def test_replay_of_a_deleted_webhook_ends(service: InMemoryService) -> None:
    """Its job finds nothing to do."""
    await store_events(service, ["code.created"] * 3)
    webhook = await create(service)
    await service.get(ReplayEvents)(OPERATOR, webhook.id, service.clock.now() - DAY)
    await service.get(DeleteWebhook)(OPERATOR, webhook.id)
    await run_jobs(service)
    await service.get(CreateReplayDeliveries)(ReplayEventsJob(UNKNOWN))
    async with service.database.read() as repositories:
        assert (repositories.tables.replays, repositories.tables.deliveries) == ({}, {})


async def test_replay_goes_on_after_an_interruption(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event is delivered twice, and a large replay lets other jobs run."""
    monkeypatch.setattr(webhook_deliveries, "REPLAY_BATCH_SIZE", 2)
    monkeypatch.setattr(webhook_deliveries, "MAX_BATCHES_PER_ATTEMPT", 2)
    events = await store_events(service, ["code.created"] * 7)
    webhook = await create(service)
    service.clock.advance(seconds=1)
    with pytest.raises(RescheduleJob) as raised:
        await replay(service, webhook, service.clock.now() - DAY)
    assert raised.value.delay == timedelta()
    assert await event_ids(service, webhook) == [event.id for event in events[:4]]
    async with service.database.read() as repositories:
        [replay_id] = repositories.tables.replays
    monkeypatch.setattr(webhook_deliveries, "MAX_BATCHES_PER_ATTEMPT", 9)
    await service.get(CreateReplayDeliveries)(ReplayEventsJob(replay_id))
    assert await event_ids(service, webhook) == [event.id for event in events]


def end_one_at_a_time(monkeypatch: pytest.MonkeyPatch, name: str) -> list[UUID]:
    """Make a method of the deliveries answer that there is more, twice; return its calls."""
    original, calls = getattr(FakeDeliveryRepository, name), []

    async def one_batch(self: FakeDeliveryRepository, webhook_id: UUID, *rest: Any) -> bool:
        calls.append(webhook_id)
        if len(calls) % 3:
            return True
        await original(self, webhook_id, *rest)
        return False

    monkeypatch.setattr(FakeDeliveryRepository, name, one_batch)
    return calls


async def test_job_ends_the_deliveries_of_a_disabled_webhook(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that one statement leaves. Meanwhile the webhook cannot be enabled."""
    webhook = await create(service)
    await publish(service, "code.created")
    calls = end_one_at_a_time(monkeypatch, "fail_pending")
    await update(service, webhook, enabled=False)
    with pytest.raises(Unavailable):
        await update(service, webhook, enabled=True)
    await run_jobs(service)
    assert calls == [webhook.id] * 3
    [delivery] = await deliveries(service, webhook)
    assert delivery.status is DeliveryStatus.FAILED


async def test_late_job_does_not_end_new_deliveries(service: InMemoryService) -> None:
    """A webhook that is enabled again keeps them."""
    webhook = await create(service)
    await publish(service, "code.created")
    for webhook_id in (webhook.id, UNKNOWN):
        await service.get(FailPendingDeliveries)(FailPendingDeliveriesJob(webhook_id))
    [delivery] = await deliveries(service, webhook)
    assert delivery.status is DeliveryStatus.PENDING


async def test_job_deletes_the_deliveries_of_a_deleted_webhook(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that one statement leaves."""
    webhook = await create(service)
    await publish(service, "code.created")
    calls = end_one_at_a_time(monkeypatch, "delete")
    await service.get(DeleteWebhook)(OPERATOR, webhook.id)
    assert len(await deliveries(service, webhook)) == 1
    await run_jobs(service)
    assert calls == [webhook.id] * 3
    assert await deliveries(service, webhook) == []


async def test_jobs_of_large_numbers_let_others_run(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some batches."""
    monkeypatch.setattr(webhook_deliveries, "MAX_BATCHES_PER_ATTEMPT", 2)
    calls = end_one_at_a_time(monkeypatch, "delete")
    with pytest.raises(RescheduleJob):
        await service.get(DeleteDeliveries)(DeleteDeliveriesJob(UNKNOWN))
    assert len(calls) == 2


async def test_deliveries_are_pruned_with_their_events(service: InMemoryService) -> None:
    """After 30 days."""
    webhook = await create(service)
    await publish(service, "code.created")
    service.clock.advance(days=30)
    await publish(service, "code.created")
    await service.get(Prune)()
    assert len(await deliveries(service, webhook)) == 2
    service.clock.advance(seconds=1)
    await service.get(Prune)()
    assert len(await deliveries(service, webhook)) == 1
