"""Token exchange (RFC 8693): a client becomes the caller for one of its users."""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from referral.core.entities.audit import AuditAction
from referral.core.entities.clients import Client, Scope, includes_scope
from referral.core.entities.external_ids import is_external_id
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.entities.users import EmailAddress, User
from referral.core.errors import (
    EmailTaken,
    ExternalIdTaken,
    InvalidRequest,
    InvalidSubjectToken,
    TooManyRequests,
    UnauthorizedClient,
)
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.external_accounts import CreateExternalAccount
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.caching import RateLimiter
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import AccessTokenIssuer
from referral.core.ports.subject_tokens import SubjectTokenVerifier

MAX_JOIN_TRIES = 3
"""An identity is looked up again if a concurrent request has created its user."""

NO_USER = "No user has this id, or the user is blocked."
NO_EMAIL = (
    "The user is new here: the subject token needs 'email' and 'email_verified': true. "
    "Or create the user first, by PUT /users/external/{external_id}."
)
OTHER_USER = "The address of the subject token belongs to an account with another external id."


@dataclass(frozen=True, slots=True)
class FindIdentityUser:
    """Find the user of a trusted issuer's identity, or create the account at first sight."""

    create_account: CreateExternalAccount
    database: Database
    email_parser: EmailParser
    invalidate_lookup: InvalidateLookup
    record_audit: RecordAudit

    async def __call__(self, client: Client, identity: Identity) -> User:
        """Return the user, or raise `InvalidSubjectToken`."""
        if not is_external_id(identity.external_id):
            raise InvalidSubjectToken("The 'sub' of the subject token cannot be an external id.")
        for _ in range(MAX_JOIN_TRIES):
            async with self.database.read() as repositories:
                user = await repositories.users.find_by_external_id(identity.external_id)
            if user is not None:
                return user
            try:
                return await self._join(client, identity, self._email(identity))
            except (EmailTaken, ExternalIdTaken):
                continue
        raise InvalidSubjectToken(OTHER_USER)

    def _email(self, identity: Identity) -> EmailAddress:
        try:
            return self.email_parser.parse(identity.email or "")
        except InvalidRequest as error:
            raise InvalidSubjectToken(NO_EMAIL) from error

    async def _join(self, client: Client, identity: Identity, email: EmailAddress) -> User:
        """Join the confirmed account of the address, or create one."""
        owners: list[User] = []
        async with self.database.begin() as repositories:
            user = await self._confirmed_account(repositories, identity, email)
            if user is None:
                user = self.create_account.draft(identity.external_id, email, vouched=True)
                owners = await self.create_account(repositories, user, client.actor)
            else:
                user = replace(user, external_id=identity.external_id)
                await self.record_audit(
                    repositories, client.actor, AuditAction.USER_CHANGED, user.id
                )
                await repositories.users.save(user)
        await self.invalidate_lookup(*owners)
        return user

    async def _confirmed_account(
        self, repositories: Repositories, identity: Identity, email: EmailAddress
    ) -> User | None:
        """Lock the confirmed account of an address.

        Raises `InvalidSubjectToken` if it is another user's, and `ExternalIdTaken` if a concurrent
        request has created it for this identity.
        """
        found = await repositories.users.find_by_email(email.email_key)
        user = found and await repositories.users.lock(found.id)
        if user is None or user.email_key != email.email_key:
            return None
        if user.external_id == identity.external_id:
            raise ExternalIdTaken
        if user.external_id is not None or user.blocked_at is not None:
            raise InvalidSubjectToken(OTHER_USER)
        return user if user.email_verified else None


@dataclass(frozen=True, slots=True)
class ExchangedToken:
    """An access token for a user, without a refresh token; `expires_in` is in seconds."""

    access_token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class ExchangeToken:
    """Issue an access token that lets a client act for a user."""

    access_token_issuer: AccessTokenIssuer
    database: Database
    find_identity_user: FindIdentityUser
    limits: RateLimiter
    record_audit: RecordAudit
    subject_token_verifier: SubjectTokenVerifier

    async def __call__(
        self, client: Client, token_type: SubjectTokenType, token: str
    ) -> ExchangedToken:
        """Return the token, which has no session and no refresh token.

        Raises `UnauthorizedClient`, `InvalidSubjectToken`, `TooManyRequests` or `Unavailable`.
        """
        if not includes_scope(client.scopes, Scope.USERS_ACT):
            raise UnauthorizedClient
        user = await self._find_user(client, token_type, token)
        if user is None or user.blocked_at is not None:
            raise InvalidSubjectToken(NO_USER)
        result = await self.limits.hit(RateLimitGroup.TOKEN, f"exchange {user.id}")
        if result is not None and not result.allowed:
            raise TooManyRequests(retry_after=timedelta(seconds=result.reset_seconds))
        async with self.database.begin() as repositories:
            await self.record_audit(
                repositories, client.actor, AuditAction.TOKEN_EXCHANGED, user.id
            )
        client_id, scope = str(client.id), Scope.ACCOUNT
        issued = self.access_token_issuer.issue(
            str(user.id), client_id, scope, acting_client=client_id
        )
        return ExchangedToken(issued, self.access_token_issuer.lifetime_seconds, scope)

    async def _find_user(
        self, client: Client, token_type: SubjectTokenType, token: str
    ) -> User | None:
        if token_type is SubjectTokenType.USER_ID:
            try:
                user_id = UUID(token)
            except ValueError:
                return None
            async with self.database.read() as repositories:
                return await repositories.users.find(user_id)
        if token_type is SubjectTokenType.EXTERNAL_ID:
            if not is_external_id(token):
                return None
            async with self.database.read() as repositories:
                return await repositories.users.find_by_external_id(token)
        identity = await self.subject_token_verifier.verify(token, token_type)
        return await self.find_identity_user(client, identity)
