"""Single-use tokens in e-mail links."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class TokenPurpose(StrEnum):
    """The purpose of an e-mail link."""

    CONFIRM = "confirm"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A stored token of an e-mail link: its SHA-256 digest. Only the mail contains the token."""

    digest: bytes
    user_id: UUID
    purpose: TokenPurpose
    expires_at: datetime
