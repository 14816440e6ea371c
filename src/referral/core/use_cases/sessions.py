"""Logging in, and staying so by refresh tokens (RFC 6749, RFC 9700)."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.clients import Scope
from referral.core.entities.passwords import normalize_password
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.entities.users import User
from referral.core.errors import (
    InvalidGrant,
    InvalidRequest,
    Unauthenticated,
    Unavailable,
    WeakPassword,
)
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel, Repositories
from referral.core.ports.security import AccessTokenIssuer, PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator, SecurityLog

FIRST_PARTY_CLIENT_ID = "first-party"
"""The `client_id` of sessions that began with a password."""

MAX_LOGIN_TRIES = 2
"""How often a login is tried: the second time when another one renewed the hash meanwhile."""

LOGIN_FAILED_DETAIL = "The e-mail address or the password is not right."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login or a refresh gives; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


@dataclass(frozen=True, slots=True)
class LogIn:
    """Begin a session with an e-mail address and a password."""

    access_token_issuer: AccessTokenIssuer
    email_parser: EmailParser
    login_throttle: LoginThrottle
    clock: Clock
    database: Database
    id_generator: IdGenerator
    password_hasher: PasswordHasher
    token_generator: TokenGenerator
    session_lifetime: timedelta

    async def __call__(self, username: str, password: str, client_ip: str) -> TokenPair:
        """Return the first tokens, or raise `InvalidGrant`, the same whatever was wrong.

        Raises `TooManyRequests` for who tries too often; `address` is the caller's on the network.
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
        """Begin a session, and store the renewed hash; None when the account has changed since."""
        session = self._make_session(user.id)
        refresh_token = self.token_generator.new()
        async with self.database.begin() as repositories:
            # Meanwhile the password may have been changed, or the account blocked or erased.
            locked = await repositories.users.lock(user.id)
            if locked is None or locked.blocked_at or locked.password_hash != user.password_hash:
                return None
            if password_hash != user.password_hash:
                await repositories.users.save(replace(locked, password_hash=password_hash))
            await repositories.sessions.add(session)
            await repositories.sessions.add_token(
                RefreshToken(self.token_generator.digest(refresh_token), session.id, None)
            )
        return issue_tokens(self.access_token_issuer, session, refresh_token)

    async def _rehash(self, user: User, password: str) -> str:
        """Return the hash to store: a new one when the parameters of hashes have changed."""
        if self.password_hasher.needs_rehash(user.password_hash):
            # A full queue is no reason to refuse a login: the next one renews the hash.
            with suppress(Unavailable):
                return await self.password_hasher.hash(normalize_password(password))
        return user.password_hash

    async def _authenticate(self, email_key: str | None, password: str) -> User | None:
        try:
            normal = normalize_password(password)
        except WeakPassword:
            return None
        user = await self._find_user(email_key)
        # An unknown address costs a hash as well, so that time does not tell who has an account.
        password_hash = user.password_hash if user else None
        matches = await self.password_hasher.verify(normal, password_hash)
        return user if user and matches and user.blocked_at is None else None

    def _email_key(self, username: str) -> str | None:
        try:
            return self.email_parser.parse(username).canonical
        except InvalidRequest:
            return None

    async def _find_user(self, email_key: str | None) -> User | None:
        if email_key is None:
            return None
        async with self.database.read() as repositories:
            return await repositories.users.find_by_email(email_key)

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
    """Trade a refresh token for the next pair; one that was stolen ends the whole session."""

    access_token_issuer: AccessTokenIssuer
    clock: Clock
    database: Database
    security_log: SecurityLog
    token_generator: TokenGenerator

    async def __call__(self, refresh_token: str) -> TokenPair:
        """Return the next tokens, or raise `InvalidGrant`."""
        async with self.database.begin() as repositories:
            tokens = await self._rotate(repositories, refresh_token)
        if tokens is None:
            detail = "The refresh token is unknown, expired or was used before. Log in again."
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
        # No exception here: the end of the session has to be committed.
        await repositories.sessions.revoke(session.id)
        if session.expires_at > now:
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
    """End the session that a refresh or an access token belongs to (RFC 7009)."""

    access_token_issuer: AccessTokenIssuer
    database: Database
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> None:
        """End the session, if there is one."""
        async with self.database.begin() as repositories:
            session_id = await self._find_session(repositories, token)
            if session_id is not None:
                await repositories.sessions.revoke(session_id)

    async def _find_session(self, repositories: Repositories, token: str) -> UUID | None:
        found = await repositories.sessions.lock_by_token(self.token_generator.digest(token))
        if found is not None:
            return found[0].id
        try:
            return self.access_token_issuer.verify(token).caller.session_id
        except Unauthenticated:
            return None


async def _use_token(repositories: Repositories, token: RefreshToken, now: datetime) -> bool:
    """Use a token of a locked session; False for one that was stolen, or another has it."""
    if token.used_at is None:
        return await repositories.sessions.mark_used(token, now)
    return not token.is_reuse(now)


@dataclass(frozen=True, slots=True)
class CheckSession:
    """Refuse changes by an access token whose session has ended.

    The token itself is good until it expires, so that reads cost no look at the database.
    """

    read_model: ReadModel

    async def __call__(self, user_id: UUID, session_id: UUID) -> None:
        """Return if the session goes on, or raise `Unauthenticated`."""
        if not await self.read_model.permits_changes(user_id, session_id):
            raise Unauthenticated("This session has ended. Log in again.")


def issue_tokens(
    access_token_issuer: AccessTokenIssuer, session: Session, refresh_token: str
) -> TokenPair:
    """Put a pair together for a session."""
    access_token = access_token_issuer.issue(
        str(session.user_id), session.client_id, session.scope, session.id
    )
    return TokenPair(
        access_token, access_token_issuer.lifetime_seconds, refresh_token, session.scope
    )
