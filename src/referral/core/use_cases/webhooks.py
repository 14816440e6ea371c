"""Webhooks: creation, changes, secrets and tests."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.event_patterns import check_patterns
from referral.core.entities.events import Event, EventType
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import DeleteDeliveriesJob
from referral.core.entities.page import Page
from referral.core.entities.webhook_deliveries import DISABLED_ERROR
from referral.core.entities.webhooks import (
    MAX_WEBHOOKS,
    Webhook,
    check_description,
)
from referral.core.errors import NotFound, TooManyWebhooks, Unavailable, WebhookDisabled
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.policies.webhook_attempts import save_disabled_webhook
from referral.core.policies.webhook_fanout import create_delivery
from referral.core.policies.webhook_secrets import decrypt_signing_secrets, encrypt_secret
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import SecretCipher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator
from referral.core.ports.webhooks import UrlPolicy

NO_WEBHOOK = "No webhook has this id."


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """The data of a new webhook; `events` are patterns."""

    url: str
    events: Sequence[str]
    description: str | None = None


WebhookWithSecret = tuple[Webhook, bytes]
"""A webhook and its new secret, which is shown once."""


@dataclass(frozen=True, slots=True)
class CreateWebhook:
    """Create a webhook, which is enabled."""

    cipher: SecretCipher
    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit
    token_generator: TokenGenerator
    url_policy: UrlPolicy

    async def __call__(
        self,
        actor: Actor,
        new: NewWebhook,
        idempotent_request: IdempotentRequest[WebhookWithSecret] | None = None,
    ) -> WebhookWithSecret:
        """Return the webhook and its secret; raises `Invalid` or `TooManyWebhooks`."""
        created = webhook, _ = self._new_webhook(new)
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            if await repositories.webhooks.count_exclusively() >= MAX_WEBHOOKS:
                raise TooManyWebhooks
            await self.record_audit(repositories, actor, AuditAction.WEBHOOK_CREATED, webhook.id)
            await repositories.webhooks.add(webhook)
            await save_idempotent_response(repositories, self.clock, idempotent_request, created)
        return created

    def _new_webhook(self, new: NewWebhook) -> WebhookWithSecret:
        self.url_policy.check(new.url)
        secret = self.token_generator.new_key()
        webhook = Webhook(
            id=self.id_generator.new(),
            url=new.url,
            events=check_patterns(new.events, field="events"),
            description=check_description(new.description),
            enabled=True,
            disabled_reason=None,
            created_at=self.clock.now(),
            secret=b"",
        )
        encrypted = encrypt_secret(self.cipher, webhook, secret)
        return replace(webhook, secret=encrypted), secret


@dataclass(frozen=True, slots=True)
class ListWebhooks:
    """List all webhooks, newest first."""

    database: Database

    async def __call__(self, *, after: UUID | None, limit: int) -> Page[Webhook]:
        """Return a page."""
        async with self.database.read() as repositories:
            rows = await repositories.webhooks.list_page(after=after, limit=limit + 1)
        return Page.from_rows(rows, limit, lambda webhook: webhook.id)


@dataclass(frozen=True, slots=True)
class ShowWebhook:
    """Return one webhook."""

    database: Database

    async def __call__(self, webhook_id: UUID) -> Webhook:
        """Return the webhook, or raise `NotFound`."""
        async with self.database.read() as repositories:
            return require_webhook(await repositories.webhooks.find(webhook_id))


@dataclass(frozen=True, slots=True)
class WebhookChanges:
    """Changes of a webhook; None changes nothing, and `no_description` removes the text."""

    url: str | None = None
    events: Sequence[str] | None = None
    description: str | None = None
    no_description: bool = False
    enabled: bool | None = None

    def applied_to(self, webhook: Webhook, url_policy: UrlPolicy) -> Webhook:
        """Return the webhook with the changes, or raise `Invalid`."""
        if self.url is not None and self.url != webhook.url:
            url_policy.check(self.url)
            webhook = webhook.with_url(self.url)
        if self.events is not None:
            webhook = replace(webhook, events=check_patterns(self.events, field="events"))
        if self.description is not None or self.no_description:
            webhook = replace(webhook, description=check_description(self.description))
        if self.enabled is not None:
            webhook = webhook.as_enabled() if self.enabled else webhook.as_disabled()
        return webhook


@dataclass(frozen=True, slots=True)
class UpdateWebhook:
    """Change, enable or disable a webhook."""

    database: Database
    record_audit: RecordAudit
    url_policy: UrlPolicy

    async def __call__(self, actor: Actor, webhook_id: UUID, changes: WebhookChanges) -> Webhook:
        """Return the webhook; raises `NotFound` or `Invalid`.

        Raises `Unavailable` if it is to be enabled while a job fails its former deliveries: they
        would be sent otherwise.
        """
        async with self.database.begin() as repositories:
            webhook = require_webhook(await repositories.webhooks.lock(webhook_id))
            changed = changes.applied_to(webhook, self.url_policy)
            if changed != webhook:
                await self._save(repositories, actor, webhook, changed)
        return changed

    async def _save(
        self, repositories: Repositories, actor: Actor, webhook: Webhook, changed: Webhook
    ) -> None:
        if replace(changed, enabled=webhook.enabled, disabled_reason=None) != webhook:
            action = AuditAction.WEBHOOK_CHANGED
            await self.record_audit(repositories, actor, action, webhook.id)
        if webhook.enabled and not changed.enabled:
            await save_disabled_webhook(repositories, self.record_audit, actor, changed)
            return
        if changed.enabled and not webhook.enabled:
            await _fail_former_deliveries(repositories, webhook.id)
            action = AuditAction.WEBHOOK_ENABLED
            await self.record_audit(repositories, actor, action, webhook.id)
        await repositories.webhooks.save(changed)


@dataclass(frozen=True, slots=True)
class DeleteWebhook:
    """Delete a webhook with its deliveries."""

    database: Database
    record_audit: RecordAudit

    async def __call__(self, actor: Actor, webhook_id: UUID) -> None:
        """Delete the webhook, or raise `NotFound`; a job deletes what one statement cannot."""
        async with self.database.begin() as repositories:
            if not await repositories.webhooks.remove(webhook_id):
                raise NotFound(NO_WEBHOOK)
            action = AuditAction.WEBHOOK_DELETED
            await self.record_audit(repositories, actor, action, webhook_id)
            if await repositories.deliveries.delete(webhook_id):
                await repositories.jobs.enqueue(DeleteDeliveriesJob(webhook_id))


@dataclass(frozen=True, slots=True)
class RotateWebhookSecret:
    """Replace the secret of a webhook; for 24 hours deliveries are signed with both."""

    cipher: SecretCipher
    clock: Clock
    database: Database
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(
        self,
        actor: Actor,
        webhook_id: UUID,
        idempotent_request: IdempotentRequest[WebhookWithSecret] | None = None,
    ) -> WebhookWithSecret:
        """Return the webhook and its new secret, or raise `NotFound`."""
        secret = self.token_generator.new_key()
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            webhook = require_webhook(await repositories.webhooks.lock(webhook_id))
            rotated = self._rotate(webhook, secret), secret
            action = AuditAction.WEBHOOK_SECRET_ROTATED
            await self.record_audit(repositories, actor, action, webhook_id)
            await repositories.webhooks.save(rotated[0])
            await save_idempotent_response(repositories, self.clock, idempotent_request, rotated)
        return rotated

    def _rotate(self, webhook: Webhook, secret: bytes) -> Webhook:
        now = self.clock.now()
        rotated = webhook.rotated(encrypt_secret(self.cipher, webhook, secret), now)
        if decrypt_signing_secrets(self.cipher, webhook, now):
            return rotated
        return replace(rotated, previous_secret=None, previous_secret_until=None)


@dataclass(frozen=True, slots=True)
class SendTestEvent:
    """Send a `webhook.test` event to one webhook."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit

    async def __call__(
        self,
        actor: Actor,
        webhook_id: UUID,
        idempotent_request: IdempotentRequest[None] | None = None,
    ) -> None:
        """Store the event and its delivery; raises `NotFound` or `WebhookDisabled`."""
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            webhook = await lock_enabled_webhook(repositories, webhook_id)
            now, data = self.clock.now(), {"webhook_id": str(webhook.id)}
            event = Event(self.id_generator.new(), EventType.WEBHOOK_TEST, now, data)
            action = AuditAction.WEBHOOK_TESTED
            await self.record_audit(repositories, actor, action, webhook_id)
            await repositories.events.add_unlisted(event)
            await repositories.deliveries.add(
                [create_delivery(self.id_generator, webhook, event, now)]
            )
            await save_idempotent_response(repositories, self.clock, idempotent_request, None)


async def lock_enabled_webhook(repositories: Repositories, webhook_id: UUID) -> Webhook:
    """Lock a webhook, or raise `NotFound` or `WebhookDisabled`."""
    webhook = require_webhook(await repositories.webhooks.lock(webhook_id))
    if not webhook.enabled:
        raise WebhookDisabled
    return webhook


def require_webhook(webhook: Webhook | None) -> Webhook:
    """Return the webhook, or raise `NotFound`."""
    if webhook is None:
        raise NotFound(NO_WEBHOOK)
    return webhook


async def _fail_former_deliveries(repositories: Repositories, webhook_id: UUID) -> None:
    if await repositories.deliveries.fail_pending(webhook_id, DISABLED_ERROR):
        detail = "The former deliveries of this webhook are still being cancelled. Try again soon."
        raise Unavailable(detail)
