"""Other services: tokens of their own, and asking about the tokens of users."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.clients import AccessToken, Client, Scope
from referral.core.entities.sessions import RefreshToken
from referral.core.entities.users import Verification
from referral.core.errors import InvalidClient, InvalidScope, Unauthenticated
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import AccessTokens, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator

GRANTABLE = frozenset(Scope) - {Scope.ACCOUNT}
"""What a client may be given; an account is for its user alone."""


@dataclass(frozen=True, slots=True)
class CreateClient:
    """Let another service in."""

    clock: Clock
    database: Database
    ids: IdGenerator
    secrets: TokenGenerator

    async def __call__(self, name: str, scopes: Iterable[Scope]) -> tuple[Client, str]:
        """Return the client and its secret, which is shown this once; raises `InvalidScope`."""
        wanted = frozenset(scopes)
        if not wanted or wanted - GRANTABLE:
            raise InvalidScope
        secret = self.secrets.new()
        client = Client(
            id=self.ids.new(),
            name=name,
            secret_digest=self.secrets.digest(secret),
            scopes=wanted,
            created_at=self.clock.now(),
        )
        async with self.database.begin() as records:
            await records.clients.add(client)
        return client, secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client says about itself."""

    client_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class AuthenticateClient:
    """Check the credentials of a client, wherever they are sent (RFC 6749, section 3.2.1)."""

    database: Database
    secrets: TokenGenerator

    async def __call__(self, credentials: Credentials | None) -> Client | None:
        """Return the client, None without credentials; raises `InvalidClient` for wrong ones."""
        if credentials is None:
            return None
        async with self.database.read() as records:
            return await authenticate(records, self.secrets, credentials)


@dataclass(frozen=True, slots=True)
class ClientToken:
    """An access token for a client; there is no refresh token with it."""

    access_token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class IssueClientToken:
    """Give a client an access token (RFC 6749, section 4.4)."""

    access_tokens: AccessTokens

    async def __call__(self, client: Client, scope: str) -> ClientToken:
        """Return a token of all the client's scopes or those named; raises `InvalidScope`."""
        wanted = set(scope.split()) or client.scopes
        if wanted - client.scopes:
            raise InvalidScope
        granted, subject = " ".join(sorted(wanted)), str(client.id)
        token = self.access_tokens.issue(subject, subject, granted)
        return ClientToken(token, self.access_tokens.lifetime, granted)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an active token is: `access_token` when it is one.

    `email_verified` is None for a client's token; `email` is there for who may read users, where
    nothing is left to confirm of it.
    """

    client_id: str
    subject: str
    scope: str
    expires_at: int
    access_token: AccessToken | None
    email: str | None = None
    email_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class Introspect:
    """Tell a client whether a token is good at the moment (RFC 7662).

    That is more than its signature tells: the session goes on, and the account is there.
    """

    access_tokens: AccessTokens
    clock: Clock
    database: Database
    secrets: TokenGenerator
    verification: Verification

    async def __call__(self, credentials: Credentials, token: str) -> Inspection | None:
        """Return what the token is if it is active; raises `InvalidClient`."""
        async with self.database.read() as records:
            client = await authenticate(records, self.secrets, credentials)
            found = await self._access(records, token) or await self._refresh(records, token)
        if found is None or Scope.USERS_READ in client.scopes:
            return found
        return replace(found, email=None)

    async def _access(self, records: Repositories, token: str) -> Inspection | None:
        try:
            read = self.access_tokens.verify(token)
        except Unauthenticated:
            return None
        caller, scope = read.caller, " ".join(sorted(read.caller.scopes))
        found = Inspection(caller.client_id, read.subject, scope, read.expires_at, read)
        if caller.user_id is None:
            return found if await _find(records, read.subject) else None
        session = caller.session_id and await records.sessions.get(caller.session_id)
        return await self._about_user(records, caller.user_id, found) if session else None

    async def _refresh(self, records: Repositories, token: str) -> Inspection | None:
        found = await records.sessions.find(self.secrets.digest(token))
        if found is None:
            return None
        session, refresh_token = found
        over = session.expires_at <= self.clock.now()
        if over or await _is_spent(records, refresh_token):
            return None
        subject, until = str(session.user_id), int(session.expires_at.timestamp())
        inspection = Inspection(session.client_id, subject, session.scope, until, None)
        return await self._about_user(records, session.user_id, inspection)

    async def _about_user(
        self, records: Repositories, user_id: UUID, found: Inspection
    ) -> Inspection | None:
        """Add what is known of the user; None for who is gone or blocked."""
        user = await records.users.get(user_id)
        if user is None or user.blocked_at is not None:
            return None
        email = user.email if self.verification.is_done_for(user) else None
        return replace(found, email=email, email_verified=user.email_verified)


async def authenticate(
    records: Repositories, secrets: TokenGenerator, credentials: Credentials
) -> Client:
    """Return the client with these credentials, or raise `InvalidClient`."""
    client = await _find(records, credentials.client_id)
    sent = secrets.digest(credentials.secret)
    if client is None or not hmac.compare_digest(sent, client.secret_digest):
        raise InvalidClient
    return client


async def _find(records: Repositories, client_id: str) -> Client | None:
    try:
        return await records.clients.get(UUID(client_id))
    except ValueError:
        return None


async def _is_spent(records: Repositories, token: RefreshToken) -> bool:
    if token.used_at is not None or token.parent is None:
        return token.used_at is not None
    found = await records.sessions.find(token.parent)
    return found is not None and found[1].has_other_heir(token)
