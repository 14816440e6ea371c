"""The system clock, and generators of ids, codes and tokens."""

import hashlib
import secrets
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capital letters without the look-alikes 0 and O, 1, I and L."""

CODE_CHARACTERS = 8
"""31 ** 8 = 8.5e11 possible codes."""

TOKEN_BYTES = 32


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)


class SystemIdGenerator:
    """UUIDv7 (RFC 9562)."""

    def new(self) -> UUID:
        """Return an id that sorts after the earlier ids of this process."""
        return uuid7()


class RandomCodeGenerator:
    """Codes from the system's CSPRNG."""

    def new(self) -> str:
        """Return a random code of `CODE_CHARACTERS` characters."""
        return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARACTERS))


class RandomTokenGenerator:
    """256-bit tokens from the system's CSPRNG: too many to guess, so SHA-256 is safe for them."""

    def new(self) -> str:
        """Return a random token of 43 characters, in URL-safe Base64."""
        return secrets.token_urlsafe(TOKEN_BYTES)

    def digest(self, token: str) -> bytes:
        """Return the SHA-256 digest of a token."""
        return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
