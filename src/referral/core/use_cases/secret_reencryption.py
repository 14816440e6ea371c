"""Encryption of the webhooks' secrets under the current key."""

from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.webhooks import Webhook
from referral.core.ports.repositories import Database
from referral.core.ports.security import SecretCipher

REENCRYPTION_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class ReencryptSecrets:
    """Encrypt all secrets with the first signing key, so that the others can be removed."""

    cipher: SecretCipher
    database: Database

    async def __call__(self) -> None:
        """Store the secrets that another key encrypted, each webhook in its own transaction."""
        after: UUID | None = None
        while True:
            async with self.database.read() as repositories:
                page = await repositories.webhooks.list_page(
                    after=after, limit=REENCRYPTION_PAGE_SIZE
                )
            for webhook in page:
                if self._reencrypted(webhook) != webhook:
                    await self._save(webhook.id)
            if len(page) < REENCRYPTION_PAGE_SIZE:
                return
            after = page[-1].id

    async def _save(self, webhook_id: UUID) -> None:
        async with self.database.begin() as repositories:
            webhook = await repositories.webhooks.lock(webhook_id)
            if webhook is not None:
                await repositories.webhooks.save(self._reencrypted(webhook))

    def _reencrypted(self, webhook: Webhook) -> Webhook:
        context, previous = webhook.id.bytes, webhook.previous_secret
        return replace(
            webhook,
            secret=self.cipher.reencrypt(webhook.secret, context) or webhook.secret,
            previous_secret=previous and (self.cipher.reencrypt(previous, context) or previous),
        )
