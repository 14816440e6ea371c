"""Sessions: login, refresh and revocation (RFC 6749, RFC 7009, RFC 9700)."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID, RefreshToken, Session
from referral.core.entities.users import User
from referral.core.errors import InvalidGrant, Unauthenticated
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.password_login import PasswordLogin
from referral.core.policies.session_tokens import BeginSession, TokenPair, issue_tokens
from referral.core.ports.repositories import Database, ReadModel, Repositories
from referral.core.ports.security import AccessTokenIssuer, TokenGenerator
from referral.core.ports.system import Clock, SecurityLog


@dataclass(frozen=True, slots=True)
class LogIn:
    """Create a session by e-mail address and password."""

    access_token_issuer: AccessTokenIssuer
    begin_session: BeginSession
    password_login: PasswordLogin

    async def __call__(self, username: str, password: str, client_ip: str) -> TokenPair:
        """Return the first tokens; raises `TooManyRequests` or `InvalidGrant`."""

        async def begin(repositories: Repositories, user: User) -> tuple[Session, str]:
            return await self.begin_session(repositories, user.id, FIRST_PARTY_CLIENT_ID)

        session, refresh_token = await self.password_login(username, password, client_ip, begin)
        return issue_tokens(self.access_token_issuer, session, refresh_token)


@dataclass(frozen=True, slots=True)
class RefreshSession:
    """Exchange a refresh token for new tokens; a replayed one revokes the session (RFC 9700)."""

    access_token_issuer: AccessTokenIssuer
    clock: Clock
    database: Database
    record_audit: RecordAudit
    security_log: SecurityLog
    token_generator: TokenGenerator

    async def __call__(
        self, refresh_token: str, client_id: str = FIRST_PARTY_CLIENT_ID
    ) -> TokenPair:
        """Return new tokens, or raise `InvalidGrant`, also for the token of another client."""
        async with self.database.begin() as repositories:
            tokens = await self._rotate(repositories, refresh_token, client_id)
        if tokens is None:
            detail = "The refresh token is unknown, expired or already used. Log in again."
            raise InvalidGrant(detail)
        return tokens

    async def _rotate(
        self, repositories: Repositories, refresh_token: str, client_id: str
    ) -> TokenPair | None:
        found = await repositories.sessions.lock_by_token(
            self.token_generator.digest(refresh_token)
        )
        if found is None or found[0].client_id != client_id:
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
