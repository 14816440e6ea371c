"""Deliveries to webhooks: lists, retries, replays, and the jobs that change many of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.event_patterns import select_types
from referral.core.entities.events import EVENT_RETENTION, Event
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import (
    DeleteDeliveriesJob,
    FailPendingDeliveriesJob,
    ReplayEventsJob,
)
from referral.core.entities.page import Page
from referral.core.entities.webhook_deliveries import (
    DISABLED_ERROR,
    Delivery,
    DeliveryStatus,
    Replay,
)
from referral.core.entities.webhooks import Webhook
from referral.core.errors import InvalidRequest, NotFound, RescheduleJob, WebhookDisabled
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.webhook_fanout import create_delivery
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock, IdGenerator
from referral.core.use_cases.webhooks import lock_enabled_webhook, require_webhook

REPLAY_BATCH_SIZE = 500
"""Events whose deliveries one transaction creates."""

MAX_BATCHES_PER_ATTEMPT = 50
"""Batches after which a job lets others run. An attempt must end within a minute."""


@dataclass(frozen=True, slots=True)
class ListDeliveries:
    """List the deliveries of a webhook, newest first."""

    database: Database

    async def __call__(
        self, webhook_id: UUID, *, status: DeliveryStatus | None, after: UUID | None, limit: int
    ) -> Page[Delivery]:
        """Return a page, or raise `NotFound`."""
        async with self.database.read() as repositories:
            require_webhook(await repositories.webhooks.find(webhook_id))
            rows = await repositories.deliveries.list_page(
                webhook_id, status=status, after=after, limit=limit + 1
            )
        return Page.from_rows(rows, limit, lambda delivery: delivery.id)


@dataclass(frozen=True, slots=True)
class RetryDelivery:
    """Attempt a delivery once more, whatever its status is."""

    clock: Clock
    database: Database
    record_audit: RecordAudit

    async def __call__(
        self,
        actor: Actor,
        webhook_id: UUID,
        delivery_id: UUID,
        idempotent_request: IdempotentRequest[None] | None = None,
    ) -> None:
        """Make the delivery due; raises `NotFound` or `WebhookDisabled`."""
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            await lock_enabled_webhook(repositories, webhook_id)
            if await repositories.deliveries.find(webhook_id, delivery_id) is None:
                raise NotFound("No delivery to this webhook has this id.")
            action, now = AuditAction.DELIVERY_RETRIED, self.clock.now()
            await self.record_audit(repositories, actor, action, delivery_id)
            await repositories.deliveries.save(
                [
                    replace(delivery, retry_requested_at=now)
                    for delivery in await repositories.deliveries.lock([delivery_id])
                ]
            )
            await save_idempotent_response(repositories, self.clock, idempotent_request, None)


@dataclass(frozen=True, slots=True)
class ReplayEvents:
    """Deliver past events again that a webhook subscribes to; a job creates the deliveries."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit

    async def __call__(
        self,
        actor: Actor,
        webhook_id: UUID,
        since: datetime,
        until: datetime | None = None,
        idempotent_request: IdempotentRequest[int] | None = None,
    ) -> int:
        """Return the number of events of `since <= occurred_at < until`.

        Later events than now are delivered anyway. Raises `NotFound`, `InvalidRequest` or
        `WebhookDisabled`.
        """
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            webhook = require_webhook(await repositories.webhooks.find(webhook_id))
            replay = self._new_replay(webhook, since, until)
            # Counted before the webhook is locked, because new deliveries wait for the lock.
            count = await repositories.events.count_between(
                replay.since, replay.until, replay.event_types
            )
            await lock_enabled_webhook(repositories, webhook_id)
            action = AuditAction.WEBHOOK_REPLAYED
            await self.record_audit(repositories, actor, action, webhook_id)
            if count:
                await repositories.replays.add(replay)
                await repositories.jobs.enqueue(ReplayEventsJob(replay.id))
            await save_idempotent_response(repositories, self.clock, idempotent_request, count)
        return count

    def _new_replay(self, webhook: Webhook, since: datetime, until: datetime | None) -> Replay:
        if not webhook.enabled:
            raise WebhookDisabled
        now = self.clock.now()
        if since >= (until or now):
            raise InvalidRequest(
                "Send a time before 'until', which is now by default.", field="since"
            )
        return Replay(
            id=self.id_generator.new(),
            webhook_id=webhook.id,
            event_types=tuple(select_types(webhook.events)),
            # Older events are deleted already. PostgreSQL cannot store all times of Python.
            since=(earliest := max(since, now - EVENT_RETENTION)),
            until=max(earliest, min(until or now, now)),
        )


@dataclass(frozen=True, slots=True)
class CreateReplayDeliveries:
    """Create the deliveries of a replay: the job of `ReplayEvents`."""

    clock: Clock
    database: Database
    id_generator: IdGenerator

    async def __call__(self, job: ReplayEventsJob) -> None:
        """Create the next deliveries; raises `RescheduleJob` while there are more."""
        await _run_batches(lambda: self._create_batch(job.replay_id))

    async def _create_batch(self, replay_id: UUID) -> bool:
        """Create a batch in one transaction with the progress, so that a crash repeats nothing."""
        async with self.database.begin() as repositories:
            replay = await repositories.replays.lock(replay_id)
            if replay is None:
                return False
            webhook = await repositories.webhooks.lock(replay.webhook_id)
            events = await _next_events(repositories, replay)
            if webhook is None or not webhook.enabled or not events:
                await repositories.replays.remove(replay_id)
                return False
            now = self.clock.now()
            await repositories.deliveries.add(
                [create_delivery(self.id_generator, webhook, event, now) for event in events]
            )
            last = events[-1]
            await repositories.replays.save(
                replace(replay, after_occurred_at=last.occurred_at, after_event_id=last.id)
            )
        return True


@dataclass(frozen=True, slots=True)
class FailPendingDeliveries:
    """Fail the pending deliveries of a disabled webhook: a job for those of a large number."""

    database: Database

    async def __call__(self, job: FailPendingDeliveriesJob) -> None:
        """Fail them in batches; raises `RescheduleJob` while there are more."""
        await _run_batches(lambda: self._fail_batch(job.webhook_id))

    async def _fail_batch(self, webhook_id: UUID) -> bool:
        async with self.database.begin() as repositories:
            webhook = await repositories.webhooks.lock(webhook_id)
            if webhook is None or webhook.enabled:
                return False
            return await repositories.deliveries.fail_pending(webhook_id, DISABLED_ERROR)


@dataclass(frozen=True, slots=True)
class DeleteDeliveries:
    """Delete the deliveries of a deleted webhook: a job for those of a large number."""

    database: Database

    async def __call__(self, job: DeleteDeliveriesJob) -> None:
        """Delete them in batches; raises `RescheduleJob` while there are more."""
        await _run_batches(lambda: self._delete_batch(job.webhook_id))

    async def _delete_batch(self, webhook_id: UUID) -> bool:
        async with self.database.begin() as repositories:
            return await repositories.deliveries.delete(webhook_id)


async def _run_batches(run_batch: Callable[[], Awaitable[bool]]) -> None:
    """Run batches until one returns False; raises `RescheduleJob` after many of them."""
    for _ in range(MAX_BATCHES_PER_ATTEMPT):
        if not await run_batch():
            return
    raise RescheduleJob(timedelta())


async def _next_events(repositories: Repositories, replay: Replay) -> list[Event]:
    last = None
    if replay.after_event_id is not None and replay.after_occurred_at is not None:
        last = Event(replay.after_event_id, "", replay.after_occurred_at, {})
    return await repositories.events.list_between(
        replay.since, replay.until, replay.event_types, after=last, limit=REPLAY_BATCH_SIZE
    )
