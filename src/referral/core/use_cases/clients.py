"""OAuth clients: registration, authentication, tokens and introspection."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.clients import (
    GRANTABLE_SCOPES,
    MAX_CLIENT_NAME_LENGTH,
    NO_SECRET,
    AccessTokenClaims,
    Client,
    Scope,
    includes_scope,
)
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.page import Page
from referral.core.entities.redirect_uris import MAX_REDIRECT_URIS, check_redirect_uri
from referral.core.entities.sessions import RefreshToken
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.errors import (
    InvalidClient,
    InvalidRequest,
    InvalidScope,
    NotFound,
    Unauthenticated,
)
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.client_identification import client_exists, find_client
from referral.core.policies.idempotency import acquire_idempotency_key, save_idempotent_response
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import AccessTokenIssuer, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator

ClientWithSecret = tuple[Client, str]
"""A client and its new secret, which is shown once."""


@dataclass(frozen=True, slots=True)
class CreateClient:
    """Create an OAuth client with a secret."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(
        self,
        name: str,
        scopes: Iterable[Scope],
        actor: Actor,
        redirect_uris: Iterable[str] = (),
        idempotent_request: IdempotentRequest[ClientWithSecret] | None = None,
    ) -> ClientWithSecret:
        """Return the client and its secret, which is not stored.

        It needs a scope, or a redirect URI for users that sign in to it. Raises `InvalidScope`,
        `InvalidRequest` for an unusable name or redirect URI, and `ClientNameTaken`.
        """
        requested, uris = frozenset(scopes), _check_redirect_uris(redirect_uris)
        if not (requested or uris) or requested - GRANTABLE_SCOPES:
            raise InvalidScope
        secret = self.token_generator.new()
        client = Client(
            id=self.id_generator.new(),
            name=_check_name(name),
            secret_digest=self.token_generator.digest(secret),
            scopes=requested,
            created_at=self.clock.now(),
            redirect_uris=uris,
        )
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            await self.record_audit(repositories, actor, AuditAction.CLIENT_CREATED, client.id)
            await repositories.clients.add(client)
            await save_idempotent_response(
                repositories, self.clock, idempotent_request, (client, secret)
            )
        return client, secret


@dataclass(frozen=True, slots=True)
class CreatePublicClient:
    """Create an OAuth client without a secret: a single-page or mobile application."""

    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit

    async def __call__(self, name: str, redirect_uris: Iterable[str], actor: Actor) -> Client:
        """Return the client.

        Raises `InvalidRequest` for an unusable name or redirect URI, and `ClientNameTaken`.
        """
        uris = _check_redirect_uris(redirect_uris)
        if not uris:
            message = "A public client needs a redirect URI: users sign in to it."
            raise InvalidRequest(message, field="redirect_uris")
        client = Client(
            id=self.id_generator.new(),
            name=_check_name(name),
            secret_digest=NO_SECRET,
            scopes=frozenset(),
            created_at=self.clock.now(),
            redirect_uris=uris,
        )
        async with self.database.begin() as repositories:
            await repositories.clients.add(client)
            await self.record_audit(repositories, actor, AuditAction.CLIENT_CREATED, client.id)
        return client


@dataclass(frozen=True, slots=True)
class ListClients:
    """List the OAuth clients."""

    database: Database

    async def __call__(self) -> list[Client]:
        """Return all clients, by name."""
        async with self.database.read() as repositories:
            return await repositories.clients.list_all()

    async def page(self, *, after: UUID | None, limit: int) -> Page[Client]:
        """Return a page of the clients, newest first."""
        async with self.database.read() as repositories:
            rows = await repositories.clients.list_page(after=after, limit=limit + 1)
        return Page.from_rows(rows, limit, lambda client: client.id)


@dataclass(frozen=True, slots=True)
class RotateClientSecret:
    """Replace the secret of an OAuth client; the old one is invalid from then on."""

    clock: Clock
    database: Database
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(
        self,
        id_or_name: str,
        actor: Actor,
        idempotent_request: IdempotentRequest[ClientWithSecret] | None = None,
    ) -> ClientWithSecret:
        """Return the client and its new secret.

        Raises `NotFound`, or `InvalidRequest` for a public client.
        """
        secret = self.token_generator.new()
        digest = self.token_generator.digest(secret)
        async with self.database.begin() as repositories:
            await acquire_idempotency_key(repositories, self.clock, idempotent_request)
            client = await _get_client(repositories, id_or_name)
            if client.is_public:
                raise InvalidRequest(f"The client '{client.name}' is public: it has no secret.")
            action = AuditAction.CLIENT_SECRET_ROTATED
            await self.record_audit(repositories, actor, action, client.id)
            if not await repositories.clients.replace_secret(client.id, digest):
                raise _client_not_found(id_or_name)
            rotated = replace(client, secret_digest=digest), secret
            await save_idempotent_response(repositories, self.clock, idempotent_request, rotated)
        return rotated


@dataclass(frozen=True, slots=True)
class RemoveClient:
    """Remove an OAuth client: it gets no new tokens, and introspection rejects its old ones."""

    database: Database
    record_audit: RecordAudit

    async def __call__(self, id_or_name: str, actor: Actor) -> Client:
        """Return the removed client; raises `NotFound`."""
        async with self.database.begin() as repositories:
            client = await _get_client(repositories, id_or_name)
            await self.record_audit(repositories, actor, AuditAction.CLIENT_DELETED, client.id)
            if not await repositories.clients.remove(client.id):
                raise _client_not_found(id_or_name)
        return client


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The id and the secret that a client sends."""

    client_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class AuthenticateClient:
    """Verify the credentials of a client (RFC 6749, section 3.2.1)."""

    database: Database
    token_generator: TokenGenerator

    async def __call__(self, credentials: ClientCredentials | None) -> Client | None:
        """Return the client, or None without credentials; raises `InvalidClient`."""
        if credentials is None:
            return None
        async with self.database.read() as repositories:
            return await authenticate_client(repositories, self.token_generator, credentials)


@dataclass(frozen=True, slots=True)
class ClientToken:
    """An access token for a client, without a refresh token; `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class IssueClientToken:
    """Issue an access token to a client (RFC 6749, section 4.4)."""

    access_token_issuer: AccessTokenIssuer

    async def __call__(self, client: Client, scope: str) -> ClientToken:
        """Return a token for the requested or else all of the client's scopes.

        Raises `InvalidScope` if the client does not have a requested scope.
        """
        requested = set(scope.split()) or client.scopes
        if not requested:
            raise InvalidScope("This client has no scopes of its own.")
        available = GRANTABLE_SCOPES if Scope.ADMIN in client.scopes else client.scopes
        if requested - available:
            raise InvalidScope
        granted, subject = " ".join(sorted(requested)), str(client.id)
        token = self.access_token_issuer.issue(subject, subject, granted)
        return ClientToken(token, self.access_token_issuer.lifetime_seconds, granted)


@dataclass(frozen=True, slots=True)
class IntrospectionResult:
    """The state of an active token; `claims` is None for a refresh token.

    `email_verified` is None for a client's token. `email` is set if the address is confirmed (or
    need not be) and the requesting client has the scope `users:read`.
    """

    client_id: str
    subject: str
    scope: str
    expires_at: int
    claims: AccessTokenClaims | None
    email: str | None = None
    email_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class IntrospectToken:
    """Introspect a token for a client (RFC 7662).

    Unlike the signature, this also checks that the session and the account still exist.
    """

    access_token_issuer: AccessTokenIssuer
    clock: Clock
    database: Database
    token_generator: TokenGenerator
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, client: Client, token: str) -> IntrospectionResult | None:
        """Return the state of the token, or None if it is inactive."""
        async with self.database.read() as repositories:
            result = await self._introspect_access_token(
                repositories, token
            ) or await self._introspect_refresh_token(repositories, token)
        if result is None or includes_scope(client.scopes, Scope.USERS_READ):
            return result
        return replace(result, email=None)

    async def _introspect_access_token(
        self, repositories: Repositories, token: str
    ) -> IntrospectionResult | None:
        try:
            claims = self.access_token_issuer.verify(token)
        except Unauthenticated:
            return None
        caller, scope = claims.caller, " ".join(sorted(claims.caller.scopes))
        result = IntrospectionResult(
            caller.client_id, claims.subject, scope, claims.expires_at, claims
        )
        if caller.user_id is None:
            return result if await find_client(repositories, claims.subject) else None
        if caller.acting_client is not None:
            # The token has no session: it ends with the client and with the user.
            client = await find_client(repositories, caller.acting_client)
            return await self._with_user(repositories, caller.user_id, result) if client else None
        session = caller.session_id and await repositories.sessions.find(caller.session_id)
        return await self._with_user(repositories, caller.user_id, result) if session else None

    async def _introspect_refresh_token(
        self, repositories: Repositories, token: str
    ) -> IntrospectionResult | None:
        found = await repositories.sessions.find_by_token(self.token_generator.digest(token))
        if found is None:
            return None
        session, refresh_token = found
        is_expired = session.expires_at <= self.clock.now()
        if is_expired or await _is_unusable(repositories, refresh_token):
            return None
        subject, expires_at = str(session.user_id), int(session.expires_at.timestamp())
        result = IntrospectionResult(session.client_id, subject, session.scope, expires_at, None)
        return await self._with_user(repositories, session.user_id, result)

    async def _with_user(
        self, repositories: Repositories, user_id: UUID, result: IntrospectionResult
    ) -> IntrospectionResult | None:
        """Add the user's data; None if the user is erased or blocked, or the client removed."""
        user = await repositories.users.find(user_id)
        if user is None or user.blocked_at is not None:
            return None
        if not await client_exists(repositories, result.client_id):
            return None
        email = user.email if self.confirmation_policy.is_satisfied_by(user) else None
        return replace(result, email=email, email_verified=user.email_verified)


async def authenticate_client(
    repositories: Repositories, token_generator: TokenGenerator, credentials: ClientCredentials
) -> Client:
    """Return the client with these credentials, or raise `InvalidClient`."""
    client = await find_client(repositories, credentials.client_id)
    digest = token_generator.digest(credentials.secret)
    if client is None or not hmac.compare_digest(digest, client.secret_digest):
        raise InvalidClient
    return client


async def _get_client(repositories: Repositories, id_or_name: str) -> Client:
    """Return the client with this id, or else with this name; raises `NotFound`."""
    client = await find_client(repositories, id_or_name)
    client = client or await repositories.clients.find_by_name(id_or_name.strip())
    if client is None:
        raise _client_not_found(id_or_name)
    return client


def _check_name(text: str) -> str:
    name = text.strip()
    if not (0 < len(name) <= MAX_CLIENT_NAME_LENGTH and name.isprintable()):
        message = f"The name must have 1 to {MAX_CLIENT_NAME_LENGTH} printable characters."
        raise InvalidRequest(message, field="name")
    return name


def _check_redirect_uris(uris: Iterable[str]) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(check_redirect_uri(uri) for uri in uris))
    if len(checked) > MAX_REDIRECT_URIS:
        message = f"A client has at most {MAX_REDIRECT_URIS} redirect URIs."
        raise InvalidRequest(message, field="redirect_uris")
    return checked


def _client_not_found(id_or_name: str) -> NotFound:
    return NotFound(f"No client has the id or the name '{id_or_name}'.")


async def _is_unusable(repositories: Repositories, token: RefreshToken) -> bool:
    """Return whether a token was used, or superseded by another one issued for its parent."""
    if token.used_at is not None or token.parent is None:
        return token.used_at is not None
    found = await repositories.sessions.find_by_token(token.parent)
    return found is not None and found[1].has_other_heir(token)
