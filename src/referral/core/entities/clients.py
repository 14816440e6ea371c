"""Clients, callers and access tokens."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")


class Scope(StrEnum):
    """What an access token is good for: one's own account, or what a client was given."""

    ACCOUNT = "account"
    CODES_READ = "codes:read"
    REFERRALS_READ = "referrals:read"
    USERS_READ = "users:read"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request: a user, or a client, which has no `user_id`.

    `session_id` is the login that the user's token comes from.
    """

    client_id: str
    scopes: frozenset[str]
    user_id: UUID | None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AccessTokenClaims:
    """What an access token says; `subject` is the id of a user or of a client."""

    id: str
    subject: str
    caller: Caller
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Client:
    """Another service; its secret is stored as a digest."""

    id: UUID
    name: str
    secret_digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
