"""Sessions and their refresh tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


REFRESH_TOKEN_GRACE_PERIOD = timedelta(seconds=10)
"""How long a used refresh token may be played again, for an answer lost on the way.

Of all tokens that are given for it, the first one used lives on.
"""


@dataclass(frozen=True, slots=True)
class Session:
    """All that follows from one login: a family of refresh tokens with one end."""

    id: UUID
    user_id: UUID
    client_id: str
    scope: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One token of a session; the token itself is not stored, only its SHA-256.

    `parent` is the token that it was given for, `heir` the first used of those given for it. Both
    are digests.
    """

    digest: bytes
    session_id: UUID
    used_at: datetime | None
    parent: bytes | None = None
    heir: bytes | None = None

    def is_reuse(self, now: datetime) -> bool:
        """Tell whether playing the token at `now` means that it was stolen.

        An answer may be lost on the way, so a used token is good for `REFRESH_GRACE`, unless one
        of the tokens given for it was used: then an answer arrived.
        """
        if self.used_at is None:
            return False
        return self.heir is not None or now - self.used_at > REFRESH_TOKEN_GRACE_PERIOD

    def has_other_heir(self, token: "RefreshToken") -> bool:
        """Tell whether another token than the one named was used of those given for this one."""
        return self.heir not in {None, token.digest}
