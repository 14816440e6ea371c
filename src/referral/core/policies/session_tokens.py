"""New sessions, and the tokens that a login, an exchange or a refresh returns."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NewType
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.clients import Scope
from referral.core.entities.sessions import RefreshToken, Session
from referral.core.policies.audit_recording import RecordAudit
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import AccessTokenIssuer, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator

SessionLifetime = NewType("SessionLifetime", timedelta)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens of a login or a refresh; `expires_in` is the access token's, in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
    scope: str


@dataclass(frozen=True, slots=True)
class BeginSession:
    """Store a session of a locked account, with its first refresh token."""

    clock: Clock
    id_generator: IdGenerator
    record_audit: RecordAudit
    token_generator: TokenGenerator
    session_lifetime: SessionLifetime

    async def __call__(
        self,
        repositories: Repositories,
        user_id: UUID,
        client_id: str,
        session_id: UUID | None = None,
    ) -> tuple[Session, str]:
        """Return the session and the refresh token."""
        now = self.clock.now()
        session = Session(
            id=session_id or self.id_generator.new(),
            user_id=user_id,
            client_id=client_id,
            scope=Scope.ACCOUNT,
            created_at=now,
            expires_at=now + self.session_lifetime,
        )
        refresh_token = self.token_generator.new()
        actor, action = Actor.user(user_id), AuditAction.SESSION_STARTED
        await self.record_audit(repositories, actor, action, session.id)
        await repositories.sessions.add(session)
        await repositories.sessions.add_token(
            RefreshToken(self.token_generator.digest(refresh_token), session.id, None)
        )
        return session, refresh_token


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
