"""Single-use tokens of links in mails."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


class TokenPurpose(StrEnum):
    """What a link in a mail is for."""

    CONFIRM = "confirm"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """What the link in a mail proves; the token itself is in the mail alone."""

    digest: bytes
    user_id: UUID
    purpose: TokenPurpose
    expires_at: datetime
