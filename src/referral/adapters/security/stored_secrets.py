"""Encryption of stored secrets: AES-256-GCM under keys derived from the signing keys."""

import os
from contextlib import suppress

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from referral.adapters.security.keys import KeyRing

NONCE_BYTES = 12
"""The length that NIST SP 800-38D recommends. A key encrypts far fewer than 2 ** 32 secrets, so
random nonces do not repeat.
"""


class AesGcmSecretCipher:
    """Encrypts with the first signing key; any of the keys decrypts."""

    def __init__(self, key_ring: KeyRing) -> None:
        """Take the signing keys."""
        self._key_ring = key_ring

    def encrypt(self, secret: bytes, context: bytes) -> bytes:
        """Return the nonce and the encrypted secret."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._keys()[0]).encrypt(nonce, secret, context)

    def decrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        decrypted = (_decrypt(key, encrypted, context) for key in self._keys())
        return next((secret for secret in decrypted if secret is not None), None)

    def reencrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        if _decrypt(self._keys()[0], encrypted, context) is not None:
            return None
        secret = self.decrypt(encrypted, context)
        return None if secret is None else self.encrypt(secret, context)

    def _keys(self) -> list[bytes]:
        return [key.encryption_key for key in self._key_ring.all()]


def _decrypt(key: bytes, encrypted: bytes, context: bytes) -> bytes | None:
    # A value that is too short is a `ValueError`.
    with suppress(InvalidTag, ValueError):
        nonce, ciphertext = encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, ciphertext, context)
    return None
