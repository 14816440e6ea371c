"""Use cases of webhooks: creation, changes, secrets, tests, and deliveries of new events."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR, AuditAction
from referral.core.entities.events import Event, EventType
from referral.core.entities.webhook_deliveries import Delivery, DeliveryAttempt, DeliveryStatus
from referral.core.entities.webhooks import DisabledReason, Webhook
from referral.core.errors import InvalidRequest, NotFound, TooManyWebhooks, WebhookDisabled
from referral.core.policies.webhook_attempts import DisableWebhook, RecordAttempts
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.policies.webhook_secrets import decrypt_signing_secrets
from referral.core.use_cases.secret_reencryption import ReencryptSecrets
from referral.core.use_cases.webhook_deliveries import RetryDelivery
from referral.core.use_cases.webhooks import (
    CreateWebhook,
    DeleteWebhook,
    ListWebhooks,
    NewWebhook,
    RotateWebhookSecret,
    SendTestEvent,
    ShowWebhook,
    UpdateWebhook,
    WebhookChanges,
)
from tests.core.service import InMemoryService

UNKNOWN = UUID(int=404)


async def create(service: InMemoryService, *patterns: str) -> Webhook:
    """Create a webhook for these patterns, or for all events."""
    new = NewWebhook("https://shop.example/hook", patterns or ("*",))
    webhook, _ = await service.get(CreateWebhook)(OPERATOR, new)
    return webhook


async def update(service: InMemoryService, webhook: Webhook, **changes: Any) -> Webhook:
    """Change a webhook."""
    return await service.get(UpdateWebhook)(OPERATOR, webhook.id, WebhookChanges(**changes))


async def publish(service: InMemoryService, *types: str) -> None:
    """Create the deliveries of new events of these types."""
    now = service.clock.now()
    async with service.database.begin() as repositories:
        events = [Event(service.id_generator.new(), each, now, {"n": 1}) for each in types]
        for event in events:
            await repositories.events.add_unlisted(event)
        await service.get(FanOutEvents)(repositories, events)


async def deliveries(service: InMemoryService, webhook: Webhook) -> list[Delivery]:
    """Return the deliveries of a webhook, oldest first."""
    async with service.database.read() as repositories:
        found = await repositories.deliveries.list_page(
            webhook.id, status=None, after=None, limit=100
        )
    return found[::-1]


async def record(
    service: InMemoryService, webhook: Webhook, delivery: Delivery, status: int, **changed: Any
) -> None:
    """Store the outcome of an attempt."""
    error = None if status < 300 else f"HTTP {status}"
    attempt = DeliveryAttempt(
        delivery.id, webhook.url, service.clock.now(), delivery.retry_requested_at, status, error
    )
    await service.get(RecordAttempts)(webhook.id, [replace(attempt, **changed)], lambda: 0)


async def test_number_of_webhooks_is_limited(service: InMemoryService) -> None:
    """As many as a worker serves at once, so that dead ones hold up no other; deleting helps."""
    first, *_ = [await create(service) for _ in range(50)]
    with pytest.raises(TooManyWebhooks, match="50 webhooks"):
        await create(service)
    await service.get(DeleteWebhook)(OPERATOR, first.id)
    await create(service)


async def signing_secrets(service: InMemoryService, webhook_id: UUID) -> tuple[bytes, ...]:
    """Return the secrets that sign a delivery now."""
    webhook = await service.get(ShowWebhook)(webhook_id)
    return decrypt_signing_secrets(service.cipher, webhook, service.clock.now())


async def test_new_webhook_is_enabled(service: InMemoryService) -> None:
    """Its secret is returned once, and stored encrypted."""
    new = NewWebhook("https://shop.example/", ["code.*", "code.*"], "Shop")
    webhook, secret = await service.get(CreateWebhook)(OPERATOR, new)
    assert (webhook.enabled, webhook.events, webhook.description) == (True, ("code.*",), "Shop")
    assert len(secret) == 32
    assert webhook.secret != secret
    assert await signing_secrets(service, webhook.id) == (secret,)
    assert await service.get(ShowWebhook)(webhook.id) == webhook


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://shop.example/"),
        ("events", ["code.unknown"]),
        ("events", ["webhook.test"]),
        ("events", ["webhook.*"]),
        ("events", []),
        ("description", "a\nb"),
    ],
)
async def test_invalid_values_are_rejected(
    service: InMemoryService, field: str, value: object
) -> None:
    """At the creation and in a change, with the name of the field."""
    webhook = await create(service)
    valid: dict[str, Any] = {"url": "https://shop.example/", "events": ["*"]}
    with pytest.raises(InvalidRequest) as raised:
        await service.get(CreateWebhook)(OPERATOR, NewWebhook(**valid | {field: value}))
    assert raised.value.field == field
    with pytest.raises(InvalidRequest) as raised:
        await update(service, webhook, **{field: value})
    assert raised.value.field == field
    assert await service.get(ShowWebhook)(webhook.id) == webhook


async def test_only_named_fields_change(service: InMemoryService) -> None:
    """The description can be removed."""
    webhook = await create(service, "code.*")
    changed = await update(service, webhook, url="https://other.example/", description="Other")
    assert changed == replace(webhook, url="https://other.example/", description="Other")
    assert await update(service, webhook, events=["*"]) == replace(changed, events=("*",))
    removed = await update(service, webhook, no_description=True, events=["*"])
    assert removed == replace(changed, events=("*",), description=None)
    assert await update(service, webhook) == removed
    assert await service.get(ShowWebhook)(webhook.id) == removed


async def test_unchanged_url_keeps_the_failures(service: InMemoryService) -> None:
    """A client that repeats its PATCH does not keep a dead receiver enabled."""
    webhook = await create(service)
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    await record(service, webhook, delivery, 500)
    repeated = await update(service, webhook, url=webhook.url, enabled=True)
    assert repeated.failing_since == service.clock.now()


async def test_webhooks_are_listed_in_pages(service: InMemoryService) -> None:
    """Newest first."""
    old, new = [await create(service) for _ in range(2)]
    first = await service.get(ListWebhooks)(after=None, limit=1)
    assert (first.items, first.next_after) == ([new], new.id)
    last = await service.get(ListWebhooks)(after=first.next_after, limit=1)
    assert (last.items, last.next_after) == ([old], None)


async def test_unknown_webhook_is_not_found(service: InMemoryService) -> None:
    """By any use case; a second deletion finds nothing either."""
    webhook = await create(service)
    await service.get(DeleteWebhook)(OPERATOR, webhook.id)
    for webhook_id in (UNKNOWN, webhook.id):
        for change in (
            service.get(DeleteWebhook),
            service.get(RotateWebhookSecret),
            service.get(SendTestEvent),
        ):
            with pytest.raises(NotFound):
                await change(OPERATOR, webhook_id)
        with pytest.raises(NotFound):
            await service.get(ShowWebhook)(webhook_id)
        with pytest.raises(NotFound):
            await service.get(UpdateWebhook)(OPERATOR, webhook_id, WebhookChanges())


async def test_events_go_to_enabled_webhooks_that_subscribe(service: InMemoryService) -> None:
    """Each gets one delivery per event, which is due at once."""
    every, some, off, none = [
        await create(service, *patterns)
        for patterns in (("*",), ("code.*", "code.created"), ("*",), ("user.*",))
    ]
    await update(service, off, enabled=False)
    await publish(service, "code.created", "referral.created")
    types = [[each.event_type for each in await deliveries(service, one)] for one in (every, some)]
    assert types == [["code.created", "referral.created"], ["code.created"]]
    assert [await deliveries(service, each) for each in (off, none)] == [[], []]
    [delivery] = await deliveries(service, some)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 0)
    assert delivery.next_attempt_at == delivery.created_at == service.clock.now()


async def test_deletion_takes_the_deliveries_along(service: InMemoryService) -> None:
    """An outcome that comes later stores nothing."""
    webhook, other = await create(service), await create(service)
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    await service.get(DeleteWebhook)(OPERATOR, webhook.id)
    await record(service, webhook, delivery, 410)
    assert await deliveries(service, webhook) == []
    assert len(await deliveries(service, other)) == 1


async def test_both_secrets_sign_after_a_rotation(service: InMemoryService) -> None:
    """For a day; after two rotations the newest two."""
    webhook = await create(service)
    [first] = await signing_secrets(service, webhook.id)
    _, second = await service.get(RotateWebhookSecret)(OPERATOR, webhook.id)
    assert await signing_secrets(service, webhook.id) == (second, first)
    _, third = await service.get(RotateWebhookSecret)(OPERATOR, webhook.id)
    assert await signing_secrets(service, webhook.id) == (third, second)
    service.clock.advance(days=1)
    assert await signing_secrets(service, webhook.id) == (third,)


async def test_lost_secrets_do_not_sign(service: InMemoryService) -> None:
    """A rotation makes the webhook usable again, without the lost secret."""
    webhook = await create(service)
    service.cipher.keys = [b"another"]
    assert await signing_secrets(service, webhook.id) == ()
    await service.get(DisableWebhook)(webhook.id, DisabledReason.UNREADABLE_SECRET)
    rotated, secret = await service.get(RotateWebhookSecret)(OPERATOR, webhook.id)
    assert rotated.disabled_reason is DisabledReason.UNREADABLE_SECRET
    assert rotated.previous_secret is None
    assert await signing_secrets(service, webhook.id) == (secret,)


async def test_lost_previous_secret_is_left_out(service: InMemoryService) -> None:
    """The newest one signs alone."""
    webhook = await create(service)
    service.cipher.keys = [b"another", b"key"]
    _, secret = await service.get(RotateWebhookSecret)(OPERATOR, webhook.id)
    service.cipher.keys = [b"another"]
    assert await signing_secrets(service, webhook.id) == (secret,)


async def test_secrets_are_encrypted_again_with_a_new_key(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, the previous ones too, so that the old key can be removed."""
    monkeypatch.setattr("referral.core.use_cases.secret_reencryption.REENCRYPTION_PAGE_SIZE", 2)
    webhooks = [await create(service) for _ in range(5)]
    await service.get(RotateWebhookSecret)(OPERATOR, webhooks[0].id)
    before = [await signing_secrets(service, webhook.id) for webhook in webhooks]
    service.cipher.keys = [b"another", b"key"]
    await service.get(ReencryptSecrets)()
    service.cipher.keys = [b"another"]
    assert [await signing_secrets(service, webhook.id) for webhook in webhooks] == before
    service.cipher.keys = [b"unrelated"]
    stored = [await service.get(ShowWebhook)(webhook.id) for webhook in webhooks]
    await service.get(ReencryptSecrets)()
    assert [await service.get(ShowWebhook)(webhook.id) for webhook in webhooks] == stored


async def test_test_event_goes_to_one_webhook(service: InMemoryService) -> None:
    """Whatever it subscribes to; the event is not in the feed."""
    webhook, other = await create(service, "code.*"), await create(service)
    await service.get(SendTestEvent)(OPERATOR, webhook.id)
    [delivery] = await deliveries(service, webhook)
    assert delivery.event_type == EventType.WEBHOOK_TEST
    assert await deliveries(service, other) == []
    async with service.database.read() as repositories:
        [due] = await repositories.deliveries.list_due(webhook.id, service.clock.now(), 9)
        assert await repositories.events.list_page(None, after=0, limit=9) == []
    assert due.data == {"webhook_id": str(webhook.id)}


async def test_disabled_webhook_gets_nothing(service: InMemoryService) -> None:
    """Its pending deliveries fail, and neither tests nor retries are possible."""
    webhook = await create(service)
    await publish(service, "code.created")
    disabled = await update(service, webhook, enabled=False)
    assert (disabled.enabled, disabled.disabled_reason) == (False, None)
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    assert (delivery.status, delivery.next_attempt_at) == (DeliveryStatus.FAILED, None)
    with pytest.raises(WebhookDisabled):
        await service.get(SendTestEvent)(OPERATOR, webhook.id)
    with pytest.raises(WebhookDisabled):
        await service.get(RetryDelivery)(OPERATOR, webhook.id, delivery.id)
    enabled = await update(service, webhook, enabled=True)
    assert enabled == webhook
    await publish(service, "code.created")
    statuses = [each.status for each in await deliveries(service, webhook)]
    assert statuses == [DeliveryStatus.FAILED, DeliveryStatus.PENDING]


async def test_outcomes_are_stored(service: InMemoryService) -> None:
    """With the status of the delivery and the failures of the webhook."""
    webhook = await create(service)
    await publish(service, "code.created")
    [delivery] = await deliveries(service, webhook)
    await record(service, webhook, delivery, 503)
    [failed] = await deliveries(service, webhook)
    assert (failed.attempts, failed.response_status) == (1, 503)
    assert failed.next_attempt_at == service.clock.now() + timedelta(seconds=5)
    assert (await service.get(ShowWebhook)(webhook.id)).failing_since == service.clock.now()
    await record(service, webhook, failed, 200)
    [succeeded] = await deliveries(service, webhook)
    assert succeeded.status is DeliveryStatus.SUCCEEDED
    webhook = await service.get(ShowWebhook)(webhook.id)
    assert webhook.failing_since is None
    assert (webhook.succeeded_attempts, webhook.failed_attempts) == (1, 1)


@pytest.mark.parametrize(
    ("status", "days", "reason"), [(410, 0, DisabledReason.GONE), (500, 5, DisabledReason.FAILING)]
)
async def test_dead_webhook_is_disabled(
    service: InMemoryService, status: int, days: int, reason: DisabledReason
) -> None:
    """With a reason, an audit record and a line in the security log; once."""
    webhook = await create(service)
    await publish(service, "code.created", "code.deleted")
    first, second = await deliveries(service, webhook)
    for delivery in (first, second):
        await record(service, webhook, delivery, status)
        service.clock.advance(days=days)
    await record(service, webhook, first, 500)
    disabled = await service.get(ShowWebhook)(webhook.id)
    assert (disabled.enabled, disabled.disabled_reason) == (False, reason)
    pending = [each for each in await deliveries(service, webhook) if each.next_attempt_at]
    assert pending == []
    async with service.database.read() as repositories:
        records = [
            (each.actor, each.subject, each.reason)
            for each in repositories.tables.audit.values()
            if each.action == AuditAction.WEBHOOK_DISABLED
        ]
    assert records == [("service", str(webhook.id), reason)]
    assert service.security_log.events == ["webhook disabled"]


async def test_disabling_by_the_service_happens_once(service: InMemoryService) -> None:
    """A webhook that was disabled or deleted meanwhile keeps its reason."""
    webhook = await create(service)
    await update(service, webhook, enabled=False)
    for webhook_id in (webhook.id, UNKNOWN):
        await service.get(DisableWebhook)(webhook_id, DisabledReason.UNREADABLE_SECRET)
    assert (await service.get(ShowWebhook)(webhook.id)).disabled_reason is None
    assert service.security_log.events == []
