"""The clock, ids and random texts of the machine."""

import hashlib
import secrets
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capitals without those that look alike: 0 and O, 1, I and L."""

CODE_CHARACTERS = 8


class SystemClock:
    """The time of the machine, in UTC."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)


class SystemIdGenerator:
    """UUIDv7 (RFC 9562), growing within a process."""

    def new(self) -> UUID:
        """See the port."""
        return uuid7()


class RandomCodeGenerator:
    """Eight characters out of 31: 8.5e11 texts."""

    def new(self) -> str:
        """See the port."""
        return "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARACTERS))


class RandomTokenGenerator:
    """256 bits from the system's CSPRNG; so many need no slow hash, SHA-256 is enough."""

    def new(self) -> str:
        """See the port."""
        return secrets.token_urlsafe(32)

    def digest(self, token: str) -> bytes:
        """See the port."""
        return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
