"""Webhooks and their deliveries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from referral.core.entities.webhook_deliveries import Delivery, DeliveryStatus, Replay
from referral.core.entities.webhooks import Webhook


class UrlPolicy(Protocol):
    """The URLs that the service may send to."""

    def check(self, url: str) -> None:
        """Raise `Invalid` for a URL that is malformed, or whose literal address is not allowed.

        Names are not looked up: a name may be allowed now, and not when a delivery is sent.
        """
        ...


class WebhookRepository(Protocol):
    """Webhooks. Their secrets are encrypted."""

    async def add(self, webhook: Webhook) -> None: ...

    async def count_exclusively(self) -> int:
        """Return the number of webhooks; others wait for this transaction before they count."""
        ...

    async def find(self, webhook_id: UUID) -> Webhook | None: ...

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Webhook]: ...

    async def lock(self, webhook_id: UUID) -> Webhook | None:
        """Lock a webhook against changes, and against new deliveries to it.

        Lock the webhook before its deliveries.
        """
        ...

    async def lock_enabled(self) -> list[Webhook]:
        """Lock all enabled webhooks, so that none is disabled or deleted; other readers may too."""
        ...

    async def save(self, webhook: Webhook) -> None:
        """Store the mutable fields of a locked webhook."""
        ...

    async def remove(self, webhook_id: UUID) -> bool:
        """Delete a webhook without its deliveries; return False if there is no such webhook."""
        ...


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery to attempt, and the `data` of its event."""

    delivery: Delivery
    data: Mapping[str, object]


class DeliveryRepository(Protocol):
    """Deliveries of events to webhooks."""

    async def add(self, deliveries: Sequence[Delivery]) -> None: ...

    async def find(self, webhook_id: UUID, delivery_id: UUID) -> Delivery | None: ...

    async def list_page(
        self, webhook_id: UUID, *, status: DeliveryStatus | None, after: UUID | None, limit: int
    ) -> list[Delivery]: ...

    async def list_due_webhooks(self, now: datetime) -> list[UUID]:
        """Return the enabled webhooks that have due deliveries.

        The cost depends on the number of webhooks, not on that of their deliveries.
        """
        ...

    async def list_due(
        self, webhook_id: UUID, now: datetime, limit: int, *, without: Sequence[UUID] = ()
    ) -> list[DueDelivery]:
        """Return due deliveries of a webhook, the longest due first; none if it is disabled.

        `without` are the deliveries that are left out.
        """
        ...

    async def lock(self, delivery_ids: Sequence[UUID]) -> list[Delivery]:
        """Lock deliveries; those that were deleted are left out."""
        ...

    async def save(self, deliveries: Sequence[Delivery]) -> None:
        """Store the mutable fields of locked deliveries."""
        ...

    async def fail_pending(self, webhook_id: UUID, error: str) -> bool:
        """Fail some of a webhook's pending deliveries, and drop its requested retries.

        `error` becomes their error, before that of the last attempt. Returns whether there may be
        more.
        """
        ...

    async def delete(self, webhook_id: UUID) -> bool:
        """Delete some of a webhook's deliveries; return whether there may be more."""
        ...

    async def prune(self, occurred_before: datetime) -> bool:
        """Delete some of the deliveries of events from before a time."""
        ...


class ReplayRepository(Protocol):
    """Replays whose deliveries are being created."""

    async def add(self, replay: Replay) -> None: ...

    async def lock(self, replay_id: UUID) -> Replay | None:
        """Lock a replay, so that only one transaction creates its next deliveries."""
        ...

    async def save(self, replay: Replay) -> None:
        """Store the last event of a locked replay."""
        ...

    async def remove(self, replay_id: UUID) -> None: ...


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A POST of a JSON body."""

    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ReceiverResponse:
    """The response of a receiver.

    `status` is None if there was no response. `error` says in words why the attempt failed, and is
    None if it succeeded. `body` is the beginning of the response of a failed attempt.
    `retry_after` is the delay that a response 429 or 503 demands.
    """

    status: int | None = None
    error: str | None = None
    body: str | None = None
    retry_after: timedelta | None = None


class WebhookSender(Protocol):
    """Sends requests to receivers, in bounded time and memory, whatever a receiver does."""

    async def send(self, request: WebhookRequest) -> ReceiverResponse:
        """Send a request. Never raises for what the receiver or its network does.

        Redirects are not followed, and only allowed networks are connected to.
        """
        ...
