"""Sessions and their refresh tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

FIRST_PARTY_CLIENT_ID = "first-party"
"""The `client_id` of sessions from the password grant."""

REFRESH_TOKEN_GRACE_PERIOD = timedelta(seconds=10)
"""How long a used refresh token stays valid, for clients that did not receive the response.

If several tokens are issued for it, the first one used stays valid, and the others become invalid.
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A login and its family of refresh tokens, which expire together."""

    id: UUID
    user_id: UUID
    client_id: str
    scope: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, stored as its SHA-256 digest.

    `parent` is the digest of the token it was issued for. `heir` is the digest of the token that
    was used first among the tokens issued for this one.
    """

    digest: bytes
    session_id: UUID
    used_at: datetime | None
    parent: bytes | None = None
    heir: bytes | None = None

    def is_reuse(self, now: datetime) -> bool:
        """Return whether the use of the token at `now` is a replay, which means theft (RFC 9700).

        A response may get lost, so a used token stays valid for `REFRESH_TOKEN_GRACE_PERIOD`. It
        ends early when a token issued for it is used: then the client received the response.
        """
        if self.used_at is None:
            return False
        return self.heir is not None or now - self.used_at > REFRESH_TOKEN_GRACE_PERIOD

    def has_other_heir(self, token: "RefreshToken") -> bool:
        """Return whether another token issued for this one was used before `token`."""
        return self.heir not in {None, token.digest}
