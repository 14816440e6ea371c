"""Effects of attempts at deliveries, and of disabling a webhook."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.audit import SERVICE, Actor, AuditAction
from referral.core.entities.jobs import FailPendingDeliveriesJob
from referral.core.entities.webhook_deliveries import DISABLED_ERROR, DeliveryAttempt
from referral.core.entities.webhooks import DisabledReason, Webhook
from referral.core.policies.audit_recording import RecordAudit
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import SecurityLog


@dataclass(frozen=True, slots=True)
class RecordAttempts:
    """Store the outcomes of attempts at one webhook's deliveries.

    Outcomes apply to the deliveries as they are then: a delivery that was deleted meanwhile stays
    deleted, and a retry that was requested meanwhile stays due.
    """

    database: Database
    record_audit: RecordAudit
    security_log: SecurityLog

    async def __call__(
        self, webhook_id: UUID, attempts: Sequence[DeliveryAttempt], jitter: Callable[[], float]
    ) -> None:
        """Store one attempt per delivery; `jitter` returns random numbers from -1 to 1."""
        by_delivery = {attempt.delivery_id: attempt for attempt in attempts}
        async with self.database.begin() as repositories:
            webhook = await repositories.webhooks.lock(webhook_id)
            if webhook is None:
                return
            deliveries = await repositories.deliveries.lock(list(by_delivery))
            await repositories.deliveries.save(
                [delivery.after(by_delivery[delivery.id], jitter()) for delivery in deliveries]
            )
            changed = webhook.after(attempts).counting(attempts)
            if webhook.enabled and not changed.enabled:
                await save_disabled_webhook(repositories, self.record_audit, SERVICE, changed)
            else:
                await repositories.webhooks.save(changed)
        if webhook.enabled:
            log_if_disabled(self.security_log, changed)


@dataclass(frozen=True, slots=True)
class DisableWebhook:
    """Disable a webhook for a reason that no attempt shows, such as an unreadable secret."""

    database: Database
    record_audit: RecordAudit
    security_log: SecurityLog

    async def __call__(self, webhook_id: UUID, reason: DisabledReason) -> None:
        """Disable the webhook, unless it is disabled or deleted already."""
        async with self.database.begin() as repositories:
            webhook = await repositories.webhooks.lock(webhook_id)
            if webhook is None or not webhook.enabled:
                return
            disabled = webhook.as_disabled(reason)
            await save_disabled_webhook(repositories, self.record_audit, SERVICE, disabled)
        log_if_disabled(self.security_log, disabled)


async def save_disabled_webhook(
    repositories: Repositories, record_audit: RecordAudit, actor: Actor, disabled: Webhook
) -> None:
    """Store a locked webhook that is now disabled, and fail its pending deliveries.

    If there are too many for one statement, a job fails the others.
    """
    reason = disabled.disabled_reason
    await record_audit(repositories, actor, AuditAction.WEBHOOK_DISABLED, disabled.id, reason)
    await repositories.webhooks.save(disabled)
    if await repositories.deliveries.fail_pending(disabled.id, DISABLED_ERROR):
        await repositories.jobs.enqueue(FailPendingDeliveriesJob(disabled.id))


def log_if_disabled(security_log: SecurityLog, webhook: Webhook) -> None:
    """Log that the service disabled a webhook."""
    if webhook.disabled_reason is not None:
        facts = {"webhook_id": str(webhook.id), "reason": webhook.disabled_reason}
        security_log.warn("webhook disabled", **facts)
