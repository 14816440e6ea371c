"""Single-use tokens in e-mail links."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID


class TokenPurpose(StrEnum):
    """The purpose of an e-mail link."""

    CONFIRM = "confirm"
    RESET = "reset"


LINK_LIFETIMES = {TokenPurpose.CONFIRM: timedelta(hours=24), TokenPurpose.RESET: timedelta(hours=1)}
"""How long a link is valid after its mail is rendered."""


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """A stored token of an e-mail link: its SHA-256 digest. Only the mail contains the token."""

    digest: bytes
    user_id: UUID
    purpose: TokenPurpose
    expires_at: datetime
