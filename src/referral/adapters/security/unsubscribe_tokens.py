"""Signed tokens for `List-Unsubscribe`; none is stored, so a database dump contains none."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from referral.adapters.security.keys import KeyRing
from referral.core.errors import NotFound

ID_BYTES = 16

TOKEN_CHARACTERS = 64
"""The Base64 of a 16-byte id and a 32-byte HMAC-SHA256."""


class SignedUnsubscribeTokens:
    """Tokens of a user id and its HMAC-SHA256, with keys derived from the signing keys."""

    def __init__(self, key_ring: KeyRing) -> None:
        """The first key signs. A token is valid as long as its key is in the key ring."""
        self._key_ring = key_ring

    def sign(self, user_id: UUID) -> str:
        """Return the token of a user."""
        return _encode_token(_derive_hmac_key(self._key_ring.all()[0].private), user_id)

    def verify(self, token: str) -> UUID:
        """Return the user's id; raises `NotFound` for an invalid token."""
        if len(token) != TOKEN_CHARACTERS:
            raise NotFound
        try:
            user_id = UUID(bytes=urlsafe_b64decode(token.encode("ascii"))[:ID_BYTES])
        except ValueError as error:
            raise NotFound from error
        keys = (_derive_hmac_key(key.private) for key in self._key_ring.all())
        if not any(hmac.compare_digest(_encode_token(key, user_id), token) for key in keys):
            raise NotFound
        return user_id


def _encode_token(key: bytes, user_id: UUID) -> str:
    signature = hmac.digest(key, user_id.bytes, "sha256")
    return urlsafe_b64encode(user_id.bytes + signature).rstrip(b"=").decode()


def _derive_hmac_key(private_key: RSAPrivateKey) -> bytes:
    encoded = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return hashlib.blake2b(encoded, person=b"referral-mute", digest_size=32).digest()
