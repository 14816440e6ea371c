"""OAuth clients, callers and access tokens."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from referral.core.entities.audit import Actor, ActorType
from referral.core.entities.redirect_uris import matches

NO_SECRET = b""
"""The digest of a public client's secret; no secret has it."""

MAX_CLIENT_NAME_LENGTH = 100


class Scope(StrEnum):
    """Scopes of access tokens: `account` for users, the others for clients."""

    ACCOUNT = "account"
    ADMIN = "admin"
    CODES_READ = "codes:read"
    EVENTS_READ = "events:read"
    REFERRALS_READ = "referrals:read"
    REFERRALS_WRITE = "referrals:write"
    USERS_ACT = "users:act"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    WEBHOOKS = "webhooks"


GRANTABLE_SCOPES = frozenset(Scope) - {Scope.ACCOUNT}
"""Scopes that a client may have; `account` is for users only."""


def includes_scope(granted: Collection[str], scope: Scope) -> bool:
    """Return whether a client's scopes include a scope; `admin` includes all of a client."""
    return scope in granted or (Scope.ADMIN in granted and scope in GRANTABLE_SCOPES)


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request: a user, or a client, which has no `user_id`.

    `session_id` is the session that the user's access token belongs to. `acting_client` is the id
    of the client that acts for the user, whose token has no session.
    """

    client_id: str
    scopes: frozenset[str]
    user_id: UUID | None
    session_id: UUID | None = None
    acting_client: str | None = None

    @property
    def actor(self) -> Actor:
        """The caller as the actor of a change: of a client that acts for a user, the client."""
        if self.user_id is not None and self.acting_client is None:
            return Actor.user(self.user_id)
        return Actor(ActorType.CLIENT, self.acting_client or self.client_id)

    def is_client_with(self, scope: Scope) -> bool:
        """Return whether the caller is a client that has a scope."""
        return self.user_id is None and includes_scope(self.scopes, scope)


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
    """An OAuth client with a unique name: another service, or an application that users sign in to.

    The digest of its secret is `NO_SECRET` if it has none: then it is a public client, whose code
    or binary everybody can read. `redirect_uris` are where users return to after signing in.
    """

    id: UUID
    name: str
    secret_digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    redirect_uris: tuple[str, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether the client has no secret, and so cannot authenticate."""
        return self.secret_digest == NO_SECRET

    def allows_redirect_to(self, uri: str) -> bool:
        """Return whether a user may be sent to this URI."""
        return any(matches(registered, uri) for registered in self.redirect_uris)

    @property
    def actor(self) -> Actor:
        """The client as the actor of a change."""
        return Actor(ActorType.CLIENT, str(self.id))
