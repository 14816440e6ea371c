"""Fakes of the repositories of webhooks, deliveries and replays, and of the URL policy."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus, Replay
from referral.core.entities.webhooks import Webhook
from referral.core.errors import InvalidRequest
from referral.core.ports.webhooks import DueDelivery, ReceiverResponse, WebhookRequest
from tests.support.fakes.tables import Tables

FIXED_FIELDS = ("webhook_id", "event_id", "event_type", "occurred_at", "created_at")


class FakeUrlPolicy:
    """Allows https."""

    def check(self, url: str) -> None:
        if not url.startswith("https://"):
            raise InvalidRequest("Send a URL of https.", field="url")


@dataclass(frozen=True)
class FakeWebhookRepository:
    """Webhooks in a dict."""

    tables: Tables

    async def add(self, webhook: Webhook) -> None:
        self._store(webhook)

    async def count_exclusively(self) -> int:
        return len(self.tables.webhooks)

    async def find(self, webhook_id: UUID) -> Webhook | None:
        return self.tables.webhooks.get(webhook_id)

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Webhook]:
        newest = sorted(self.tables.webhooks.values(), key=lambda each: each.id, reverse=True)
        return [each for each in newest if after is None or each.id < after][:limit]

    async def lock(self, webhook_id: UUID) -> Webhook | None:
        return await self.find(webhook_id)

    async def lock_enabled(self) -> list[Webhook]:
        oldest = sorted(self.tables.webhooks.values(), key=lambda each: each.id)
        return [each for each in oldest if each.enabled]

    async def save(self, webhook: Webhook) -> None:
        if webhook.id in self.tables.webhooks:
            created_at = self.tables.webhooks[webhook.id].created_at
            self._store(replace(webhook, created_at=created_at))

    async def remove(self, webhook_id: UUID) -> bool:
        return self.tables.webhooks.pop(webhook_id, None) is not None

    def _store(self, webhook: Webhook) -> None:
        for text in (webhook.url, webhook.description or "", *webhook.events):
            self.tables.check_text(text)
        is_consistent = not (webhook.enabled and webhook.disabled_reason)
        self.tables.require(is_satisfied=is_consistent, constraint="disabled_reason")
        self.tables.webhooks[webhook.id] = webhook


@dataclass(frozen=True)
class FakeDeliveryRepository:
    """Deliveries in a dict."""

    tables: Tables

    async def add(self, deliveries: Sequence[Delivery]) -> None:
        self._store(deliveries)

    async def find(self, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
        delivery = self.tables.deliveries.get(delivery_id)
        return delivery if delivery and delivery.webhook_id == webhook_id else None

    async def list_page(
        self, webhook_id: UUID, *, status: DeliveryStatus | None, after: UUID | None, limit: int
    ) -> list[Delivery]:
        newest = sorted(self._of(webhook_id), key=lambda each: each.id, reverse=True)
        return [
            each
            for each in newest
            if status in {None, each.status} and (after is None or each.id < after)
        ][:limit]

    async def list_due_webhooks(self, now: datetime) -> list[UUID]:
        due = sorted(self._due(now), key=_next_attempt_at)
        enabled = (each.webhook_id for each in due if self._is_enabled(each.webhook_id))
        return list(dict.fromkeys(enabled))

    async def list_due(
        self, webhook_id: UUID, now: datetime, limit: int, *, without: Sequence[UUID] = ()
    ) -> list[DueDelivery]:
        due = sorted(self._due(now), key=_next_attempt_at)
        return [
            DueDelivery(each, self.tables.events[each.event_id].data)
            for each in due
            if each.webhook_id == webhook_id
            and each.id not in without
            and self._is_enabled(webhook_id)
            and each.event_id in self.tables.events
        ][:limit]

    async def lock(self, delivery_ids: Sequence[UUID]) -> list[Delivery]:
        ids = sorted(set(delivery_ids) & set(self.tables.deliveries))
        return [self.tables.deliveries[delivery_id] for delivery_id in ids]

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        for each in deliveries:
            if stored := self.tables.deliveries.get(each.id):
                fixed = {name: getattr(stored, name) for name in FIXED_FIELDS}
                self._store([replace(each, **fixed)])

    async def fail_pending(self, webhook_id: UUID, error: str) -> bool:
        for each in self._of(webhook_id):
            ended = replace(each, scheduled_for=None, retry_requested_at=None)
            if each.status is DeliveryStatus.PENDING:
                error_text = f"{error} Last attempt: {each.error}" if each.error else error
                ended = replace(ended, status=DeliveryStatus.FAILED, error=error_text)
            self._store([ended])
        return False

    async def delete(self, webhook_id: UUID) -> bool:
        self._delete(lambda each: each.webhook_id == webhook_id)
        return False

    async def prune(self, occurred_before: datetime) -> bool:
        self._delete(lambda each: each.occurred_at < occurred_before)
        return False

    def _of(self, webhook_id: UUID) -> list[Delivery]:
        return [each for each in self.tables.deliveries.values() if each.webhook_id == webhook_id]

    def _due(self, now: datetime) -> list[Delivery]:
        scheduled = (each for each in self.tables.deliveries.values() if each.next_attempt_at)
        return [each for each in scheduled if _next_attempt_at(each) <= now]

    def _is_enabled(self, webhook_id: UUID) -> bool:
        webhook = self.tables.webhooks.get(webhook_id)
        return webhook is not None and webhook.enabled

    def _store(self, deliveries: Iterable[Delivery]) -> None:
        for each in deliveries:
            is_pending = each.status is DeliveryStatus.PENDING
            is_consistent = is_pending == (each.scheduled_for is not None)
            self.tables.require(is_satisfied=is_consistent, constraint="scheduled_for")
            self.tables.deliveries[each.id] = each

    def _delete(self, condition: Callable[[Delivery], bool]) -> None:
        for each in list(self.tables.deliveries.values()):
            if condition(each):
                del self.tables.deliveries[each.id]


@dataclass(frozen=True)
class FakeReplayRepository:
    """Replays in a dict."""

    tables: Tables

    async def add(self, replay: Replay) -> None:
        self.tables.replays[replay.id] = replay

    async def lock(self, replay_id: UUID) -> Replay | None:
        return self.tables.replays.get(replay_id)

    async def save(self, replay: Replay) -> None:
        self.tables.replays[replay.id] = replay

    async def remove(self, replay_id: UUID) -> None:
        self.tables.replays.pop(replay_id, None)


def _next_attempt_at(delivery: Delivery) -> datetime:
    assert delivery.next_attempt_at is not None
    return delivery.next_attempt_at


@dataclass
class FakeWebhookSender:
    """Records requests, and how many there are at once; `answer` replaces a success."""

    answer: Callable[[WebhookRequest], Awaitable[ReceiverResponse]] | None = None
    requests: list[WebhookRequest] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def send(self, request: WebhookRequest) -> ReceiverResponse:
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            return await self.answer(request) if self.answer else ReceiverResponse(200)
        finally:
            self.running -= 1

    @property
    def event_ids(self) -> list[UUID]:
        """The events that were sent."""
        return [UUID(request.headers["webhook-id"]) for request in self.requests]
