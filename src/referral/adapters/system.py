"""The system clock, and generators of ids, codes and tokens."""

import hashlib
import secrets
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from referral.core.entities.codes import GENERATED_CODE_ALPHABET, GENERATED_CODE_CHARACTERS

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
        """Return a code of `GENERATED_CODE_CHARACTERS` characters."""
        characters = range(GENERATED_CODE_CHARACTERS)
        return "".join(secrets.choice(GENERATED_CODE_ALPHABET) for _ in characters)


class RandomTokenGenerator:
    """256-bit tokens from the system's CSPRNG: too many to guess, so SHA-256 is safe for them."""

    def new(self) -> str:
        """Return a random token of 43 characters, in URL-safe Base64."""
        return secrets.token_urlsafe(TOKEN_BYTES)

    def new_key(self) -> bytes:
        return secrets.token_bytes(TOKEN_BYTES)

    def digest(self, token: str) -> bytes:
        """Return the SHA-256 digest of a token."""
        return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
