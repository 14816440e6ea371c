"""Webhooks with due deliveries in a real database."""

from datetime import UTC, datetime

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import SystemIdGenerator
from referral.core.entities.events import Event
from referral.core.entities.webhook_deliveries import Delivery
from referral.core.entities.webhooks import Webhook
from referral.core.ports.security import SecretCipher

SECRET = b"secret of the tests: 32 bytes..."


async def add_webhook(database: PostgresDatabase, cipher: SecretCipher, url: str) -> Webhook:
    """Store a webhook for all events."""
    webhook_id, now = SystemIdGenerator().new(), datetime.now(UTC)
    secret = cipher.encrypt(SECRET, webhook_id.bytes)
    webhook = Webhook(webhook_id, url, ("*",), None, True, None, now, secret)  # noqa: FBT003
    async with database.begin() as repositories:
        await repositories.webhooks.add(webhook)
    return webhook


def make_events(number: int) -> list[Event]:
    """Return events of a usual size."""
    new_id, now = SystemIdGenerator().new, datetime.now(UTC)
    data = {
        "code_id": str(new_id()),
        "user_id": str(new_id()),
        "code": "SPRING-2026",
        "status": "active",
        "expires_at": "2026-12-31T00:00:00Z",
        "uses": 0,
        "max_uses": None,
    }
    return [Event(new_id(), "code.created", now, data | {"uses": n}) for n in range(number)]


async def add_events(database: PostgresDatabase, number: int) -> list[Event]:
    """Commit events, which a worker publishes to all webhooks."""
    events = make_events(number)
    async with database.begin() as repositories:
        await repositories.events.add(*events)
    return events


async def add_deliveries(
    database: PostgresDatabase, webhooks: list[Webhook], number: int
) -> list[Event]:
    """Store published events, and a due delivery of each to these webhooks alone."""
    new_id, now, events = SystemIdGenerator().new, datetime.now(UTC), make_events(number)
    async with database.begin() as repositories:
        await repositories.events.add(*events)
        await repositories.events.publish(number, wait=True)
        await repositories.deliveries.add(
            [
                Delivery(new_id(), webhook.id, event.id, event.type, now, now, now)
                for event in events
                for webhook in webhooks
            ]
        )
    return events
