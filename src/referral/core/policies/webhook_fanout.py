"""Deliveries of published events to all webhooks that subscribe to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from referral.core.entities.events import Event
from referral.core.entities.webhook_deliveries import Delivery
from referral.core.entities.webhooks import Webhook
from referral.core.ports.repositories import Repositories
from referral.core.ports.system import Clock, IdGenerator


@dataclass(frozen=True, slots=True)
class FanOutEvents:
    """Create the deliveries of events, in the transaction that publishes them."""

    clock: Clock
    id_generator: IdGenerator

    async def __call__(self, repositories: Repositories, events: Sequence[Event]) -> None:
        """Create a delivery for each event and each enabled webhook that subscribes to it."""
        webhooks = await repositories.webhooks.lock_enabled() if events else []
        now = self.clock.now()
        deliveries = [
            create_delivery(self.id_generator, webhook, event, now)
            for event in events
            for webhook in webhooks
            if webhook.subscribes_to(event.type)
        ]
        if deliveries:
            await repositories.deliveries.add(deliveries)


def create_delivery(
    id_generator: IdGenerator, webhook: Webhook, event: Event, now: datetime
) -> Delivery:
    """Return a delivery that is due at once."""
    return Delivery(
        id=id_generator.new(),
        webhook_id=webhook.id,
        event_id=event.id,
        event_type=event.type,
        occurred_at=event.occurred_at,
        created_at=now,
        scheduled_for=now,
    )
