"""Authorization codes with PKCE (RFC 6749, section 4.1; RFC 7636)."""

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from uuid import UUID

AUTHORIZATION_CODE_LIFETIME = timedelta(seconds=60)

CODE_CHALLENGE_METHOD = "S256"
CODE_CHALLENGE_PATTERN = re.compile(r"[A-Za-z0-9_-]{43}")
"""A code challenge: SHA-256 in Base64url."""

CODE_VERIFIER_PATTERN = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a code is issued for, and must be exchanged with."""

    client_id: UUID
    redirect_uri: str
    code_challenge: str


@dataclass(frozen=True, slots=True)
class AuthorizationCode:
    """A code that a client exchanges for tokens, once.

    `session_id` is the session that the exchange began, or None before it.
    """

    digest: bytes
    user_id: UUID
    client_id: UUID
    redirect_uri: str
    code_challenge: str
    scope: str
    expires_at: datetime
    session_id: UUID | None = None


def make_code_challenge(code_verifier: str) -> str:
    """Return the challenge of a verifier (RFC 7636, section 4.2)."""
    return urlsafe_b64encode(sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
