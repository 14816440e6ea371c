"""OAuth clients, callers and access tokens."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

MAX_CLIENT_NAME_LENGTH = 100


class Scope(StrEnum):
    """Scopes of access tokens: `account` for users, the others for clients."""

    ACCOUNT = "account"
    CODES_READ = "codes:read"
    REFERRALS_READ = "referrals:read"
    USERS_READ = "users:read"


GRANTABLE_SCOPES = frozenset(Scope) - {Scope.ACCOUNT}
"""Scopes that a client may have; `account` is for users only."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a user, or a client, which has no `user_id`.

    `session_id` is the session that the user's access token belongs to.
    """

    client_id: str
    scopes: frozenset[str]
    user_id: UUID | None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AccessTokenClaims:
    """Claims of an access token; `subject` is a user's or a client's id, times are Unix seconds."""

    id: str
    subject: str
    caller: Caller
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """Another service that is an OAuth client, with a unique name and the digest of its secret."""

    id: UUID
    name: str
    secret_digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
