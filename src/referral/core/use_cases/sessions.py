"""Logging in, and staying so by refresh tokens (RFC 6749, RFC 9700)."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.clients import Scope
from referral.core.entities.passwords import normal_password
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
from referral.core.ports.security import AccessTokens, PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator, SecurityLog

FIRST_PARTY = "first-party"
"""The `client_id` of sessions that began with a password."""

ROUNDS = 2
"""How often a login is tried: the second time when another one renewed the hash meanwhile."""

REFUSED = "The e-mail address or the password is not right."


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login or a refresh gives; `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


@dataclass(frozen=True, slots=True)
class LogIn:
    """Begin a session with an e-mail address and a password."""

    access_tokens: AccessTokens
    addresses: EmailParser
    login_throttle: LoginThrottle
    clock: Clock
    database: Database
    ids: IdGenerator
    passwords: PasswordHasher
    secrets: TokenGenerator
    lifetime: timedelta

    async def __call__(self, username: str, password: str, address: str) -> Tokens:
        """Return the first tokens, or raise `InvalidGrant`, the same whatever was wrong.

        Raises `TooManyRequests` for who tries too often; `address` is the caller's on the network.
        """
        key = self._key(username)
        await self.login_throttle.count(key or username, address)
        for _ in range(ROUNDS):
            user = await self._authenticate(key, password)
            tokens = user and await self._begin(user, await self._renew(user, password))
            if tokens:
                return tokens
            if user is None:
                break
        raise InvalidGrant(REFUSED)

    async def _begin(self, user: User, renewed: str) -> Tokens | None:
        """Begin a session, and store the renewed hash; None when the account has changed since."""
        session = self._session(user.id)
        refresh_token = self.secrets.new()
        async with self.database.begin() as records:
            # Meanwhile the password may have been changed, or the account blocked or erased.
            locked = await records.users.lock(user.id)
            if locked is None or locked.blocked_at or locked.password_hash != user.password_hash:
                return None
            if renewed != user.password_hash:
                await records.users.save(replace(locked, password_hash=renewed))
            await records.sessions.add(session)
            await records.sessions.add_token(
                RefreshToken(self.secrets.digest(refresh_token), session.id, None)
            )
        return make_tokens(self.access_tokens, session, refresh_token)

    async def _renew(self, user: User, password: str) -> str:
        """Return the hash to store: a new one when the parameters of hashes have changed."""
        if self.passwords.needs_rehash(user.password_hash):
            # A full queue is no reason to refuse a login: the next one renews the hash.
            with suppress(Unavailable):
                return await self.passwords.hash(normal_password(password))
        return user.password_hash

    async def _authenticate(self, key: str | None, password: str) -> User | None:
        try:
            normal = normal_password(password)
        except WeakPassword:
            return None
        user = await self._find(key)
        # An unknown address costs a hash as well, so that time does not tell who has an account.
        hashed = user.password_hash if user else None
        matches = await self.passwords.verify(normal, hashed)
        return user if user and matches and user.blocked_at is None else None

    def _key(self, username: str) -> str | None:
        try:
            return self.addresses.parse(username).canonical
        except InvalidRequest:
            return None

    async def _find(self, key: str | None) -> User | None:
        if key is None:
            return None
        async with self.database.read() as records:
            return await records.users.by_email(key)

    def _session(self, user_id: UUID) -> Session:
        now = self.clock.now()
        return Session(
            id=self.ids.new(),
            user_id=user_id,
            client_id=FIRST_PARTY,
            scope=Scope.ACCOUNT,
            created_at=now,
            expires_at=now + self.lifetime,
        )


@dataclass(frozen=True, slots=True)
class Refresh:
    """Trade a refresh token for the next pair; one that was stolen ends the whole session."""

    access_tokens: AccessTokens
    clock: Clock
    database: Database
    journal: SecurityLog
    secrets: TokenGenerator

    async def __call__(self, refresh_token: str) -> Tokens:
        """Return the next tokens, or raise `InvalidGrant`."""
        async with self.database.begin() as records:
            tokens = await self._rotate(records, refresh_token)
        if tokens is None:
            detail = "The refresh token is unknown, expired or was used before. Log in again."
            raise InvalidGrant(detail)
        return tokens

    async def _rotate(self, records: Repositories, refresh_token: str) -> Tokens | None:
        found = await records.sessions.lock(self.secrets.digest(refresh_token))
        if found is None:
            return None
        session, token = found
        now = self.clock.now()
        if session.expires_at > now and await _use(records, token, now):
            return await self._next(records, session, token)
        # No exception here: the end of the session has to be committed.
        await records.sessions.end(session.id)
        if session.expires_at > now:
            self.journal.warn("refresh token reused", user_id=str(session.user_id))
        return None

    async def _next(self, records: Repositories, session: Session, token: RefreshToken) -> Tokens:
        refresh_token = self.secrets.new()
        digest = self.secrets.digest(refresh_token)
        await records.sessions.add_token(
            RefreshToken(digest, session.id, None, parent=token.digest)
        )
        return make_tokens(self.access_tokens, session, refresh_token)


@dataclass(frozen=True, slots=True)
class Revoke:
    """End the session that a refresh or an access token belongs to (RFC 7009)."""

    access_tokens: AccessTokens
    database: Database
    secrets: TokenGenerator

    async def __call__(self, token: str) -> None:
        """End the session, if there is one."""
        async with self.database.begin() as records:
            session_id = await self._find(records, token)
            if session_id is not None:
                await records.sessions.end(session_id)

    async def _find(self, records: Repositories, token: str) -> UUID | None:
        found = await records.sessions.lock(self.secrets.digest(token))
        if found is not None:
            return found[0].id
        try:
            return self.access_tokens.verify(token).caller.session_id
        except Unauthenticated:
            return None


async def _use(records: Repositories, token: RefreshToken, now: datetime) -> bool:
    """Use a token of a locked session; False for one that was stolen, or another has it."""
    if token.used_at is None:
        return await records.sessions.mark_used(token, now)
    return not token.is_reuse(now)


@dataclass(frozen=True, slots=True)
class CheckSession:
    """Refuse changes by an access token whose session has ended.

    The token itself is good until it expires, so that reads cost no look at the database.
    """

    reads: ReadModel

    async def __call__(self, user_id: UUID, session_id: UUID) -> None:
        """Return if the session goes on, or raise `Unauthenticated`."""
        if not await self.reads.may_change(user_id, session_id):
            raise Unauthenticated("This session has ended. Log in again.")


def make_tokens(access_tokens: AccessTokens, session: Session, refresh_token: str) -> Tokens:
    """Put a pair together for a session."""
    access_token = access_tokens.issue(
        str(session.user_id), session.client_id, session.scope, session.id
    )
    return Tokens(access_token, access_tokens.lifetime, refresh_token, session.scope)
