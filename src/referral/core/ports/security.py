"""Passwords, tokens and digests."""

from typing import Protocol
from uuid import UUID

from referral.core.entities.clients import AccessTokenClaims


class TokenGenerator(Protocol):
    """Opaque 256-bit tokens, and the digest under which they are stored."""

    def new(self) -> str: ...

    def digest(self, secret: str) -> bytes: ...


class Fingerprinter(Protocol):
    """Digests by a key of the service: by each it has, the newest first."""

    def compute(self, data: bytes) -> tuple[bytes, ...]: ...


class PasswordHasher(Protocol):
    """Slow hashes, away from the event loop; raises `Unavailable` when too many wait."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Compare; without a hash, or with an older and cheaper one, it costs the same time."""
        ...

    def needs_rehash(self, password_hash: str) -> bool:
        """Tell whether a hash was made with other parameters than new ones are."""
        ...


class AccessTokenIssuer(Protocol):
    """Signed access tokens (RFC 9068)."""

    @property
    def lifetime_seconds(self) -> int:
        """How long a token is good for, in seconds."""
        ...

    def issue(
        self, subject: str, client_id: str, scope: str, session_id: UUID | None = None
    ) -> str: ...

    def verify(self, token: str) -> AccessTokenClaims:
        """Return what the token says, or raise `Unauthenticated`."""
        ...

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK Set (RFC 7517)."""
        ...


class UnsubscribeTokens(Protocol):
    """Tokens that let whoever holds a mail end the notifications, and nothing else."""

    def sign(self, user_id: UUID) -> str: ...

    def verify(self, token: str) -> UUID:
        """Return whom a token was made for, or raise `NotFound`."""
        ...
