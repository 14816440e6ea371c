"""Sessions: login, refresh and revocation (RFC 6749, RFC 7009, RFC 9700)."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NewType
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.clients import Scope
from referral.core.entities.passwords import normalize_password, password_forms
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import User
from referral.core.errors import (
    InvalidGrant,
    InvalidRequest,
    Unauthenticated,
    Unavailable,
    WeakPassword,
)
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel, Repositories
from referral.core.ports.security import AccessTokenIssuer, PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator, SecurityLog

SessionLifetime = NewType("SessionLifetime", timedelta)

FIRST_PARTY_CLIENT_ID = "first-party"
"""The `client_id` of sessions from the password grant."""

MAX_LOGIN_TRIES = 2
"""A login is tried again if a concurrent login of the same user has replaced the hash."""

LOGIN_FAILED_DETAIL = "The e-mail address or the password is wrong."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a login or a refresh; `expires_in` is the access token's, in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


@dataclass(frozen=True, slots=True)
class LogIn:
    """Create a session by e-mail address and password."""

    access_token_issuer: AccessTokenIssuer
    email_parser: EmailParser
    login_throttle: LoginThrottle
    clock: Clock
    database: Database
    id_generator: IdGenerator
    password_hasher: PasswordHasher
    record_audit: RecordAudit
    token_generator: TokenGenerator
    session_lifetime: SessionLifetime

    async def __call__(self, username: str, password: str, client_ip: str) -> TokenPair:
        """Return the first tokens.

        Raises `TooManyRequests`, or `InvalidGrant`, the same for all causes, so that it does not
        reveal which accounts exist.
        """
        email_key = self._email_key(username)
        await self.login_throttle.hit(email_key or username, client_ip)
        for _ in range(MAX_LOGIN_TRIES):
            user = await self._authenticate(email_key, password)
            tokens = user and await self._begin_session(user, await self._rehash(user, password))
            if tokens:
                return tokens
            if user is None:
                break
        raise InvalidGrant(LOGIN_FAILED_DETAIL)

    async def _begin_session(self, user: User, password_hash: str) -> TokenPair | None:
        """Create a session and store a new hash; None if the account has changed meanwhile."""
        session = self._make_session(user.id)
        refresh_token = self.token_generator.new()
        async with self.database.begin() as repositories:
            # Since the read, the password may have changed, or the account been blocked or erased.
            locked = await repositories.users.lock(user.id)
            if locked is None or locked.blocked_at or locked.password_hash != user.password_hash:
                return None
            if password_hash != user.password_hash:
                await repositories.users.save(replace(locked, password_hash=password_hash))
            actor, action = Actor.user(user.id), AuditAction.SESSION_STARTED
            await self.record_audit(repositories, actor, action, session.id)
            await repositories.sessions.add(session)
            await repositories.sessions.add_token(
                RefreshToken(self.token_generator.digest(refresh_token), session.id, None)
            )
        return issue_tokens(self.access_token_issuer, session, refresh_token)

    async def _rehash(self, user: User, password: str) -> str:
        """Return the hash to store: a new one if the parameters of the old one are outdated."""
        if self.password_hasher.needs_rehash(user.password_hash):
            # Do not fail the login if the queue is full: the next login computes the hash.
            with suppress(Unavailable):
                return await self.password_hasher.hash(normalize_password(password))
        return user.password_hash

    async def _authenticate(self, email_key: str | None, password: str) -> User | None:
        try:
            forms = password_forms(password)
        except WeakPassword:
            return None
        user, costliest_hash = await self._find_user(email_key)
        # Hash for an unknown address and a blocked account too: the timing must not reveal them.
        password_hash = user.password_hash if user and user.blocked_at is None else None
        for form in forms:
            if await self.password_hasher.verify(form, password_hash, costliest_hash):
                return user
        return None

    def _email_key(self, username: str) -> str | None:
        try:
            return self.email_parser.parse(username).email_key
        except InvalidRequest:
            return None

    async def _find_user(self, email_key: str | None) -> tuple[User | None, str | None]:
        """Return the user, and the costliest hash of all users."""
        async with self.database.read() as repositories:
            user = email_key and await repositories.users.find_by_email(email_key)
            return user or None, await repositories.users.find_costliest_hash()

    def _make_session(self, user_id: UUID) -> Session:
        now = self.clock.now()
        return Session(
            id=self.id_generator.new(),
            user_id=user_id,
            client_id=FIRST_PARTY_CLIENT_ID,
            scope=Scope.ACCOUNT,
            created_at=now,
            expires_at=now + self.session_lifetime,
        )


@dataclass(frozen=True, slots=True)
class RefreshSession:
    """Exchange a refresh token for new tokens; a replayed one revokes the session (RFC 9700)."""

    access_token_issuer: AccessTokenIssuer
    clock: Clock
    database: Database
    record_audit: RecordAudit
    security_log: SecurityLog
    token_generator: TokenGenerator

    async def __call__(self, refresh_token: str) -> TokenPair:
        """Return new tokens, or raise `InvalidGrant`."""
        async with self.database.begin() as repositories:
            tokens = await self._rotate(repositories, refresh_token)
        if tokens is None:
            detail = "The refresh token is unknown, expired or already used. Log in again."
            raise InvalidGrant(detail)
        return tokens

    async def _rotate(self, repositories: Repositories, refresh_token: str) -> TokenPair | None:
        found = await repositories.sessions.lock_by_token(
            self.token_generator.digest(refresh_token)
        )
        if found is None:
            return None
        session, token = found
        now = self.clock.now()
        if session.expires_at > now and await _use_token(repositories, token, now):
            return await self._issue_next(repositories, session, token)
        # Do not raise here: the revocation must be committed.
        await repositories.sessions.revoke(session.id)
        if session.expires_at > now:
            actor, action = Actor.user(session.user_id), AuditAction.SESSION_REUSED
            await self.record_audit(repositories, actor, action, session.id)
            self.security_log.warn("refresh token reused", user_id=str(session.user_id))
        return None

    async def _issue_next(
        self, repositories: Repositories, session: Session, token: RefreshToken
    ) -> TokenPair:
        refresh_token = self.token_generator.new()
        digest = self.token_generator.digest(refresh_token)
        await repositories.sessions.add_token(
            RefreshToken(digest, session.id, None, parent=token.digest)
        )
        return issue_tokens(self.access_token_issuer, session, refresh_token)


@dataclass(frozen=True, slots=True)
class RevokeSession:
    """Revoke the session of a refresh or access token (RFC 7009)."""

    access_token_issuer: AccessTokenIssuer
    database: Database
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> None:
        """Revoke the session; an unknown token is ignored."""
        async with self.database.begin() as repositories:
            session = await self._find_session(repositories, token)
            if session is not None and await repositories.sessions.revoke(session.id):
                actor, action = Actor.user(session.user_id), AuditAction.SESSION_ENDED
                await self.record_audit(repositories, actor, action, session.id)

    async def _find_session(self, repositories: Repositories, token: str) -> Session | None:
        found = await repositories.sessions.lock_by_token(self.token_generator.digest(token))
        if found is not None:
            return found[0]
        try:
            session_id = self.access_token_issuer.verify(token).caller.session_id
        except Unauthenticated:
            return None
        return await repositories.sessions.find(session_id) if session_id else None


async def _use_token(repositories: Repositories, token: RefreshToken, now: datetime) -> bool:
    """Use a token of a locked session; return False if it is replayed or superseded."""
    if token.used_at is None:
        return await repositories.sessions.mark_used(token, now)
    return not token.is_reuse(now)


@dataclass(frozen=True, slots=True)
class CheckSession:
    """Reject changes by an access token whose session has ended.

    Reads accept the token until it expires, so that they need no database query.
    """

    read_model: ReadModel

    async def __call__(self, user_id: UUID, session_id: UUID) -> None:
        """Return if the session exists, or raise `Unauthenticated`."""
        if not await self.read_model.has_session_or_is_blocked(user_id, session_id):
            raise Unauthenticated("This session has ended. Log in again.")


def issue_tokens(
    access_token_issuer: AccessTokenIssuer, session: Session, refresh_token: str
) -> TokenPair:
    """Return a refresh token with a new access token for its session."""
    access_token = access_token_issuer.issue(
        str(session.user_id), session.client_id, session.scope, session.id
    )
    return TokenPair(
        access_token, access_token_issuer.lifetime_seconds, refresh_token, session.scope
    )
