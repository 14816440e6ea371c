"""Races of webhooks and deliveries, decided by a real PostgreSQL; query plans; metrics."""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from referral.adapters.postgres.database import PostgresDatabase, PostgresRepositories
from referral.adapters.postgres.event_metrics import read_event_samples
from referral.adapters.postgres.repositories.webhook_deliveries import LIST_DUE, LIST_DUE_WEBHOOKS
from referral.adapters.system import RandomTokenGenerator, SystemIdGenerator
from referral.core.entities.audit import OPERATOR
from referral.core.entities.events import Event
from referral.core.entities.jobs import ReplayEventsJob
from referral.core.entities.webhook_deliveries import Delivery, DeliveryAttempt, DeliveryStatus
from referral.core.entities.webhooks import DisabledReason, Webhook
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.webhook_attempts import RecordAttempts
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.policies.webhook_secrets import decrypt_signing_secrets
from referral.core.ports.repositories import Repositories
from referral.core.use_cases.webhook_deliveries import (
    CreateReplayDeliveries,
    ReplayEvents,
    RetryDelivery,
)
from referral.core.use_cases.webhooks import (
    DeleteWebhook,
    RotateWebhookSecret,
    UpdateWebhook,
    WebhookChanges,
)
from tests.contracts.rows import make_webhook, store_delivery, store_webhook
from tests.support.fakes.security import FakeSecretCipher
from tests.support.fakes.system import FakeClock, FakeSecurityLog
from tests.support.fakes.webhooks import FakeUrlPolicy
from tests.support.waiting import wait_for_value

BLOCKED = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@dataclass(frozen=True)
class Hooks:
    """The use cases over the real database."""

    database: PostgresDatabase
    clock: FakeClock
    cipher: FakeSecretCipher

    @property
    def audit(self) -> RecordAudit:
        """Records in the audit log."""
        return RecordAudit(self.clock, SystemIdGenerator())

    async def add(self, deliveries: int = 0) -> tuple[Webhook, list[Delivery]]:
        """Store a webhook with some due deliveries."""
        webhook = make_webhook()
        secret = self.cipher.encrypt(b"first", webhook.id.bytes)
        webhook = await store_webhook(self.database, id=webhook.id, secret=secret)
        now = self.clock.now()
        return webhook, [
            await store_delivery(self.database, webhook, scheduled_for=now, created_at=now)
            for _ in range(deliveries)
        ]

    def rotate(self, webhook: Webhook) -> Awaitable[tuple[Webhook, bytes]]:
        """Rotate the secret."""
        use_case = RotateWebhookSecret(
            self.cipher, self.clock, self.database, self.audit, RandomTokenGenerator()
        )
        return use_case(OPERATOR, webhook.id)

    def retry(self, delivery: Delivery) -> Awaitable[None]:
        """Request a retry."""
        use_case = RetryDelivery(self.clock, self.database, self.audit)
        return use_case(OPERATOR, delivery.webhook_id, delivery.id)

    def fail(self, webhook: Webhook, *deliveries: Delivery, status: int = 500) -> Awaitable[None]:
        """Store failed attempts."""
        attempts = [
            DeliveryAttempt(each.id, webhook.url, self.clock.now(), None, status, "failed")
            for each in deliveries
        ]
        record = RecordAttempts(self.database, self.audit, FakeSecurityLog())
        return record(webhook.id, attempts, lambda: 0)

    def disable(self, webhook: Webhook) -> Awaitable[Webhook]:
        """Disable a webhook by hand."""
        use_case = UpdateWebhook(self.database, self.audit, FakeUrlPolicy())
        return use_case(OPERATOR, webhook.id, WebhookChanges(enabled=False))

    def delete(self, webhook: Webhook) -> Awaitable[None]:
        """Delete a webhook."""
        return DeleteWebhook(self.database, self.audit)(OPERATOR, webhook.id)

    async def fan_out(self, repositories: Repositories, count: int = 1) -> None:
        """Create the deliveries of new events, in the transaction that publishes them."""
        now, new_id = self.clock.now(), SystemIdGenerator().new
        events = [Event(new_id(), "code.created", now, {}) for _ in range(count)]
        for event in events:
            await repositories.events.add_unlisted(event)
        await FanOutEvents(self.clock, SystemIdGenerator())(repositories, events)

    async def stored(self, webhook: Webhook) -> list[Delivery]:
        """Return the deliveries of a webhook."""
        async with self.database.read() as repositories:
            return await repositories.deliveries.list_page(
                webhook.id, status=None, after=None, limit=1000
            )

    async def is_blocked(self) -> bool:
        """Return whether a transaction waits for a lock."""
        async with self.database.read() as repositories:
            return bool(await repositories.connection.fetch_sql(BLOCKED))

    async def wait_for_lock(self) -> None:
        """Wait until a transaction waits for a lock."""

        async def blocked() -> bool | None:
            return await self.is_blocked() or None

        assert await wait_for_value(blocked)


@pytest.fixture
def hooks(database: PostgresDatabase, clock: FakeClock) -> Hooks:
    """The use cases over the module's database."""
    return Hooks(database, clock, FakeSecretCipher())


async def test_concurrent_rotations_form_a_chain(hooks: Hooks) -> None:
    """None is lost, and the newest two sign."""
    webhook, _ = await hooks.add()
    rotated = await asyncio.gather(*(hooks.rotate(webhook) for _ in range(9)))
    secrets = {secret for _, secret in rotated}
    pairs = [decrypt_signing_secrets(hooks.cipher, one, hooks.clock.now()) for one, _ in rotated]
    followers = dict((pair[1], pair[0]) for pair in pairs)  # noqa: C402 - pairs of two
    assert len(secrets) == len(followers) == 9
    last = b"first"
    for _ in range(9):
        last = followers.pop(last)
    async with hooks.database.read() as repositories:
        stored = await repositories.webhooks.find(webhook.id)
    assert stored is not None
    assert decrypt_signing_secrets(hooks.cipher, stored, hooks.clock.now())[0] == last


async def test_retry_survives_the_outcome_of_an_attempt(hooks: Hooks) -> None:
    """In either order: the attempt is counted, and one more is due."""
    webhook, deliveries = await hooks.add(deliveries=20)
    await asyncio.gather(
        *(hooks.fail(webhook, each) for each in deliveries),
        *(hooks.retry(each) for each in deliveries),
    )
    now = hooks.clock.now()
    expected = (1, 1, now, now + timedelta(seconds=5))
    assert [
        (each.attempts, each.scheduled_failures, each.retry_requested_at, each.scheduled_for)
        for each in await hooks.stored(webhook)
    ] == [expected] * 20


async def test_no_outcome_is_lost(hooks: Hooks) -> None:
    """Of attempts at one delivery, and in the counts of the webhook."""
    webhook, [delivery] = await hooks.add(deliveries=1)
    await asyncio.gather(*(hooks.fail(webhook, delivery) for _ in range(9)))
    [stored] = await hooks.stored(webhook)
    assert (stored.attempts, stored.status) == (9, DeliveryStatus.PENDING)
    async with hooks.database.read() as repositories:
        samples = await read_event_samples(repositories.connection)
    counted = {(sample.name, sample.labels): sample.value for sample in samples}
    assert counted["referral_webhook_attempts", (str(webhook.id), "failed")] == 9
    assert counted["referral_webhook_attempts", (str(webhook.id), "succeeded")] == 0


async def test_deletion_leaves_no_delivery(hooks: Hooks) -> None:
    """Whatever outcomes, retries and events come at the same time."""
    for _ in range(5):
        webhook, deliveries = await hooks.add(deliveries=3)

        async def publish() -> None:
            async with hooks.database.begin() as repositories:
                await hooks.fan_out(repositories)

        await asyncio.gather(
            hooks.fail(webhook, *deliveries),
            publish(),
            *(hooks.retry(each) for each in deliveries),
            hooks.delete(webhook),
            hooks.fail(webhook, *deliveries, status=410),
            publish(),
            return_exceptions=True,
        )
        assert await hooks.stored(webhook) == []
        async with hooks.database.read() as repositories:
            assert await repositories.webhooks.find(webhook.id) is None


@pytest.mark.parametrize("deletes", [False, True])
async def test_end_of_a_webhook_waits_for_the_deliveries_being_made(
    hooks: Hooks, *, deletes: bool
) -> None:
    """So that it ends or deletes them too."""
    webhook, _ = await hooks.add()
    async with hooks.database.begin() as repositories:
        await hooks.fan_out(repositories, count=3)
        end = asyncio.ensure_future(hooks.delete(webhook) if deletes else hooks.disable(webhook))
        await hooks.wait_for_lock()
        assert not end.done()
    await end
    statuses = [each.status for each in await hooks.stored(webhook)]
    assert statuses == ([] if deletes else [DeliveryStatus.FAILED] * 3)


@pytest.mark.parametrize("deletes", [False, True])
async def test_deliveries_wait_for_the_end_of_a_webhook(hooks: Hooks, *, deletes: bool) -> None:
    """And none is made for it, while another webhook gets its own."""
    webhook, _ = await hooks.add()
    other, _ = await hooks.add()

    async def publish() -> None:
        async with hooks.database.begin() as repositories:
            await hooks.fan_out(repositories)

    async with AsyncExitStack() as stack:
        repositories: PostgresRepositories = await stack.enter_async_context(hooks.database.begin())
        locked = await repositories.webhooks.lock(webhook.id)
        assert locked is not None
        if deletes:
            await repositories.webhooks.remove(webhook.id)
        else:
            await repositories.webhooks.save(locked.as_disabled(DisabledReason.GONE))
        publishing = asyncio.ensure_future(publish())
        await hooks.wait_for_lock()
    await publishing
    assert await hooks.stored(webhook) == []
    assert len(await hooks.stored(other)) == 1


async def test_concurrent_jobs_of_a_replay_make_each_delivery_once(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if one of them runs again."""
    monkeypatch.setattr("referral.core.use_cases.webhook_deliveries.REPLAY_BATCH_SIZE", 3)
    new_id, now = SystemIdGenerator().new, hooks.clock.now()
    webhook, _ = await hooks.add()
    events = [
        Event(new_id(), "code.created", now - timedelta(minutes=number), {})
        for number in range(1, 11)
    ]
    async with hooks.database.begin() as repositories:
        await repositories.events.add(*events)
    async with hooks.database.begin() as repositories:
        await repositories.events.publish(100, wait=True)
    request = ReplayEvents(hooks.clock, hooks.database, SystemIdGenerator(), hooks.audit)
    since = now - timedelta(minutes=10)
    assert await request(OPERATOR, webhook.id, since) == 10
    async with hooks.database.read() as repositories:
        [row] = await repositories.connection.fetch_sql(
            "SELECT id FROM webhook_replays WHERE webhook_id = $1", webhook.id
        )
    job = ReplayEventsJob(row["id"])
    create = CreateReplayDeliveries(hooks.clock, hooks.database, SystemIdGenerator())
    await asyncio.gather(*(create(job) for _ in range(4)))
    await create(job)
    created = [each.event_id for each in await hooks.stored(webhook)]
    assert sorted(created) == sorted(event.id for event in events)


async def test_due_webhooks_are_found_by_the_index(hooks: Hooks) -> None:
    """One with many due deliveries costs a probe of the index; no plan reads all deliveries."""
    dead, _ = await hooks.add()
    idle, _ = await hooks.add()
    fill = """
        INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, occurred_at,
            created_at, status, attempts, scheduled_failures, scheduled_for)
        SELECT gen_random_uuid(), $1, gen_random_uuid(), 'code.created', now(), now(), 'pending',
            0, 0, now() - interval '1 hour' FROM generate_series(1, 50000)
    """
    analyze = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    async with hooks.database.read() as repositories:
        connection = repositories.connection
        await connection.fetch_sql(fill, dead.id)
        await connection.fetch_sql("ANALYZE webhook_deliveries, webhooks")
        now = hooks.clock.now()
        due = await repositories.deliveries.list_due_webhooks(now)
        plans = [
            rows[0][0][0]["Plan"]
            for rows in (
                await connection.fetch_sql(analyze + LIST_DUE_WEBHOOKS, now),
                await connection.fetch_sql(analyze + LIST_DUE, dead.id, now, 100, []),
            )
        ]
    assert dead.id in due
    assert idle.id not in due
    for plan in plans:
        assert "ix_webhook_deliveries_due" in str(plan)
        assert not _scans_deliveries(plan), plan
    # Pages of tables and indexes that the search read.
    assert plans[0]["Shared Hit Blocks"] + plans[0]["Shared Read Blocks"] < 200


def _scans_deliveries(plan: dict[str, Any]) -> bool:
    is_scan = plan["Node Type"] == "Seq Scan" and plan["Relation Name"] == "webhook_deliveries"
    return is_scan or any(_scans_deliveries(child) for child in plan.get("Plans", []))


async def test_disabled_webhooks_are_counted_by_reason(hooks: Hooks) -> None:
    """Those that a request disabled, too."""

    async def counts() -> dict[tuple[str, ...], object]:
        async with hooks.database.read() as repositories:
            samples = await read_event_samples(repositories.connection)
        return {
            each.labels: each.value for each in samples if each.name == "referral_webhooks_disabled"
        }

    async def pending() -> object:
        async with hooks.database.read() as repositories:
            return (await read_event_samples(repositories.connection))[-1].value

    before, pending_before = await counts(), await pending()
    assert set(before) == {("gone",), ("failing",), ("unreadable_secret",), ("by_request",)}
    gone, [delivery] = await hooks.add(deliveries=1)
    off, _ = await hooks.add(deliveries=2)
    assert await pending() == int(str(pending_before)) + 3
    await hooks.fail(gone, delivery, status=410)
    await hooks.disable(off)
    changed = {labels for labels, value in (await counts()).items() if value != before[labels]}
    assert changed == {("gone",), ("by_request",)}
    assert await pending() == pending_before
