"""Password hashes, tokens and digests."""

from typing import Protocol
from uuid import UUID

from referral.core.entities.clients import AccessTokenClaims


class TokenGenerator(Protocol):
    """Generates opaque 256-bit tokens, and the digests that are stored instead of them."""

    def new(self) -> str: ...

    def new_key(self) -> bytes:
        """Return 32 random bytes, for a secret that is stored encrypted."""
        ...

    def digest(self, secret: str) -> bytes: ...


class Fingerprinter(Protocol):
    """Computes keyed digests: one for each signing key, newest first."""

    def compute(self, data: bytes) -> tuple[bytes, ...]: ...


class SecretCipher(Protocol):
    """Encrypts stored secrets under keys derived from the signing keys.

    `context` is where a secret is stored, such as the id of its row: a secret that was moved
    elsewhere does not decrypt.
    """

    def encrypt(self, secret: bytes, context: bytes) -> bytes:
        """Encrypt a secret with the first signing key."""
        ...

    def decrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        """Return the secret, or None if none of the signing keys decrypts it."""
        ...

    def reencrypt(self, encrypted: bytes, context: bytes) -> bytes | None:
        """Return a secret encrypted with the first signing key instead of another one.

        Returns None if it is already, or if no key decrypts it.
        """
        ...


class PasswordHasher(Protocol):
    """Hashes passwords outside the event loop; raises `Unavailable` if its queue is full."""

    async def hash(self, password: str) -> str: ...

    async def verify(
        self, password: str, password_hash: str | None, costliest_hash: str | None = None
    ) -> bool:
        """Verify a password; a missing or cheaper hash takes the same time (no timing oracle).

        The same time is that of a new hash or, if it is passed and takes longer, of
        `costliest_hash`.
        """
        ...

    def needs_rehash(self, password_hash: str) -> bool:
        """Return whether a hash is of another form, or has other parameters, than new hashes."""
        ...

    def cost(self, password_hash: str) -> int | None:
        """Return the estimated milliseconds to verify an imported hash; None for one of our own.

        Raises `InvalidRequest` for a hash that cannot be verified, or only at an excessive cost.
        """
        ...


class AccessTokenIssuer(Protocol):
    """Issues and verifies signed access tokens (RFC 9068)."""

    @property
    def lifetime_seconds(self) -> int:
        """The lifetime of a token, in seconds."""
        ...

    def issue(
        self,
        subject: str,
        client_id: str,
        scope: str,
        session_id: UUID | None = None,
        *,
        acting_client: str | None = None,
    ) -> str: ...

    def verify(self, token: str) -> AccessTokenClaims:
        """Return the claims of a valid token, or raise `Unauthenticated`."""
        ...

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK Set (RFC 7517)."""
        ...


class UnsubscribeTokens(Protocol):
    """Signed tokens in `List-Unsubscribe` links; they permit nothing else."""

    def sign(self, user_id: UUID) -> str: ...

    def verify(self, token: str) -> UUID:
        """Return the user id of a token, or raise `NotFound`."""
        ...
