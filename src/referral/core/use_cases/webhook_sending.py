"""Sending due deliveries to webhooks: one job at a time per webhook."""

import asyncio
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.jobs import DeliverWebhookJob
from referral.core.entities.webhook_deliveries import DeliveryAttempt
from referral.core.entities.webhooks import HTTP_GONE, DisabledReason, Webhook
from referral.core.errors import RescheduleJob, Unavailable
from referral.core.policies.webhook_attempts import DisableWebhook, RecordAttempts
from referral.core.policies.webhook_requests import encode_event, signature_headers
from referral.core.policies.webhook_secrets import decrypt_signing_secrets
from referral.core.ports.repositories import Database
from referral.core.ports.security import SecretCipher
from referral.core.ports.system import Clock
from referral.core.ports.webhooks import (
    DueDelivery,
    ReceiverResponse,
    WebhookRequest,
    WebhookSender,
)

BATCH_SIZE = 400
"""Deliveries that are read together, and whose outcomes are stored together: a transaction costs as
much as many requests."""

MAX_REQUESTS_PER_WEBHOOK = 8

BATCH_PERIOD = timedelta(seconds=1)
"""No attempt of a batch begins later. A crash repeats the attempts whose outcome is not stored: two
batches at most."""

JOB_PERIOD = timedelta(seconds=10)
"""No batch begins later, so that other webhooks get their turn; the next job goes on."""

DATABASE_RETRY_DELAY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class EnqueueDueWebhooks:
    """Enqueue a job for each webhook that has due deliveries and no job yet.

    It is called again and again, so a job that ends while deliveries become due, or whose worker
    crashes, needs nothing else.
    """

    clock: Clock
    database: Database

    async def __call__(self) -> bool:
        """Enqueue the jobs; return whether any deliveries are due."""
        async with self.database.read() as repositories:
            due = await repositories.deliveries.list_due_webhooks(self.clock.now())
        if due:
            async with self.database.begin() as repositories:
                await repositories.jobs.enqueue(*map(DeliverWebhookJob, due))
        return bool(due)


@dataclass(slots=True)
class ConcurrencyLimit:
    """How many requests a webhook gets at once: a failure allows one, each success twice as many.

    So a receiver that is dead or overloaded has one request at a time, and occupies little. After
    410 it gets none. `running` is the number of requests at the moment.
    """

    allowed: int = 1
    running: int = 0

    def update(self, response: ReceiverResponse) -> None:
        """Take the outcome of a request into account."""
        if response.status == HTTP_GONE:
            self.allowed = 0
        elif response.error is None:
            self.allowed = min(2 * self.allowed, MAX_REQUESTS_PER_WEBHOOK)
        else:
            self.allowed = min(self.allowed, 1)


@dataclass(frozen=True, slots=True)
class DeliverWebhook:
    """Send the due deliveries of a webhook."""

    clock: Clock
    database: Database
    disable_webhook: DisableWebhook
    record_attempts: RecordAttempts
    secret_cipher: SecretCipher
    sender: WebhookSender

    async def __call__(self, job: DeliverWebhookJob) -> None:
        """Send batches until nothing is due, or until it is the turn of other webhooks."""
        try:
            await self._deliver(job.webhook_id)
        except Unavailable:
            # No back-off: while the database is unavailable, no job runs anyway.
            raise RescheduleJob(DATABASE_RETRY_DELAY) from None

    async def _deliver(self, webhook_id: UUID) -> None:
        """Send batches. The outcomes of each are stored while the next one is sent."""
        limit, ends_at = ConcurrencyLimit(), self.clock.now() + JOB_PERIOD
        sent: list[DeliveryAttempt] = []
        storing: asyncio.Task[None] | None = None
        try:
            while self.clock.now() < ends_at:
                batch = await self._read_batch(webhook_id, limit, sent)
                if batch is None:
                    break
                previous, sent = storing, batch.attempts
                try:
                    await batch.send()
                finally:  # also when the worker stops: what was delivered is not delivered again
                    storing = asyncio.create_task(self._store(webhook_id, sent, previous))
                if previous is not None:
                    await asyncio.shield(previous)
        finally:
            if storing is not None:
                await storing

    async def _read_batch(
        self, webhook_id: UUID, limit: ConcurrencyLimit, sent: Iterable[DeliveryAttempt]
    ) -> "DeliveryBatch | None":
        """Return due deliveries without those that were just sent; None if there are none."""
        now, without = self.clock.now(), [attempt.delivery_id for attempt in sent]
        async with self.database.read() as repositories:
            webhook = await repositories.webhooks.find(webhook_id)
            due = await repositories.deliveries.list_due(
                webhook_id, now, BATCH_SIZE, without=without
            )
        if webhook is None or not due:
            return None
        secrets = decrypt_signing_secrets(self.secret_cipher, webhook, now)
        if not secrets:
            await self.disable_webhook(webhook_id, DisabledReason.UNREADABLE_SECRET)
            return None
        until = now + BATCH_PERIOD
        return DeliveryBatch(self.clock, self.sender, webhook, secrets, limit, iter(due), until)

    async def _store(
        self,
        webhook_id: UUID,
        attempts: Sequence[DeliveryAttempt],
        previous: asyncio.Task[None] | None,
    ) -> None:
        """Store the outcomes of a batch after those of the previous one."""
        try:
            if previous is not None:
                await previous
        finally:
            if attempts:
                await self.record_attempts(webhook_id, attempts, _jitter)


@dataclass(frozen=True, slots=True)
class DeliveryBatch:
    """Attempts at some deliveries of one webhook."""

    clock: Clock
    sender: WebhookSender
    webhook: Webhook
    secrets: tuple[bytes, ...]
    limit: ConcurrencyLimit
    due: Iterator[DueDelivery]
    until: datetime
    attempts: list[DeliveryAttempt] = field(default_factory=list)

    async def send(self) -> None:
        """Attempt the deliveries, as many at once as the limit allows; begin none after `until`.

        `attempts` has the outcomes, also after a cancellation.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._start_tasks(tasks)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _start_tasks(self, tasks: asyncio.TaskGroup) -> None:
        for _ in range(self.limit.allowed - self.limit.running):
            self.limit.running += 1
            tasks.create_task(self._send_in_turn(tasks))

    async def _send_in_turn(self, tasks: asyncio.TaskGroup) -> None:
        """Attempt one delivery after the other; a task for each would cost more."""
        try:
            while self.limit.running <= self.limit.allowed and self.clock.now() < self.until:
                delivery = next(self.due, None)
                if delivery is None:
                    break
                await self._attempt(delivery)
                self._start_tasks(tasks)
        finally:
            self.limit.running -= 1

    async def _attempt(self, due: DueDelivery) -> None:
        delivery = due.delivery
        body = encode_event(delivery.event_id, delivery.event_type, delivery.occurred_at, due.data)
        headers = signature_headers(delivery.event_id, self.clock.now(), body, self.secrets)
        response = await self.sender.send(WebhookRequest(self.webhook.url, headers, body))
        self.limit.update(response)
        self.attempts.append(
            DeliveryAttempt(
                delivery_id=delivery.id,
                url=self.webhook.url,
                ended_at=self.clock.now(),
                retry_requested_at=delivery.retry_requested_at,
                response_status=response.status,
                error=response.error,
                # An erasure removes the external id from the event, and must find no copy of it.
                response_body=None if due.data.get("external_id") else response.body,
                retry_after=response.retry_after,
            )
        )


def _jitter() -> float:
    return random.uniform(-1, 1)  # noqa: S311 - no secret
