"""Signing secrets of webhooks, which are stored encrypted."""

from datetime import datetime

from referral.core.entities.webhooks import Webhook
from referral.core.ports.security import SecretCipher


def encrypt_secret(cipher: SecretCipher, webhook: Webhook, secret: bytes) -> bytes:
    """Encrypt a secret for a webhook; another webhook cannot decrypt it."""
    return cipher.encrypt(secret, webhook.id.bytes)


def decrypt_signing_secrets(
    cipher: SecretCipher, webhook: Webhook, now: datetime
) -> tuple[bytes, ...]:
    """Return the secrets that sign a delivery at `now`, the newest first.

    The result is empty if no signing key decrypts the newest secret.
    """
    newest, *older = (
        cipher.decrypt(encrypted, webhook.id.bytes) for encrypted in webhook.signing_secrets(now)
    )
    if newest is None:
        return ()
    return newest, *(secret for secret in older if secret is not None)
