"""Signed tokens for `List-Unsubscribe`: nothing is stored that a dump could give away."""

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
"""Characters of a token: the Base64 of an id and of an HMAC-SHA256."""


class SignedUnsubscribeTokens:
    """An id and its HMAC-SHA256, under keys derived from the signing keys; the first signs."""

    def __init__(self, key_ring: KeyRing) -> None:
        """Take the signing keys; a link lives as long as the key that it was signed with."""
        self._key_ring = key_ring

    def sign(self, user_id: UUID) -> str:
        """See the port."""
        return _encode_token(_derive_hmac_key(self._key_ring.all()[0].private), user_id)

    def verify(self, token: str) -> UUID:
        """See the port."""
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
