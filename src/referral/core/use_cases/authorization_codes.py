"""Authorization codes with PKCE: signing in to a client without handing out the password.

RFC 6749 (4.1), RFC 7636 and RFC 9700.
"""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.authorization_codes import (
    AUTHORIZATION_CODE_LIFETIME,
    CODE_VERIFIER_PATTERN,
    AuthorizationCode,
    AuthorizationRequest,
    make_code_challenge,
)
from referral.core.entities.clients import Client, Scope
from referral.core.entities.sessions import Session
from referral.core.errors import InvalidGrant
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.session_tokens import BeginSession, TokenPair, issue_tokens
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import AccessTokenIssuer, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator, SecurityLog


@dataclass(frozen=True, slots=True)
class IssueAuthorizationCode:
    """Issue a code to a client for the user that is logged in on the pages."""

    clock: Clock
    database: Database
    token_generator: TokenGenerator

    async def __call__(self, login_token: str, request: AuthorizationRequest) -> str | None:
        """Return the code, or None if the login session has ended."""
        login_digest, now = self.token_generator.digest(login_token), self.clock.now()
        code = self.token_generator.new()
        async with self.database.begin() as repositories:
            found = await repositories.login_sessions.find(login_digest, now)
            if found is None or not await _lock_active_user(repositories, found.user_id):
                return None
            # Before the lock, a new password may have ended the login session.
            if await repositories.login_sessions.find(login_digest, now) is None:
                return None
            await repositories.authorization_codes.add(
                AuthorizationCode(
                    digest=self.token_generator.digest(code),
                    user_id=found.user_id,
                    client_id=request.client_id,
                    redirect_uri=request.redirect_uri,
                    code_challenge=request.code_challenge,
                    scope=Scope.ACCOUNT,
                    expires_at=now + AUTHORIZATION_CODE_LIFETIME,
                )
            )
        return code


@dataclass(frozen=True, slots=True)
class ExchangeAuthorizationCode:
    """Exchange a code for the tokens of a new session; a second use ends that session."""

    access_token_issuer: AccessTokenIssuer
    begin_session: BeginSession
    clock: Clock
    database: Database
    id_generator: IdGenerator
    record_audit: RecordAudit
    security_log: SecurityLog
    token_generator: TokenGenerator

    async def __call__(
        self, client: Client, code: str, redirect_uri: str, code_verifier: str
    ) -> TokenPair:
        """Return the first tokens, or raise `InvalidGrant`."""
        is_valid = CODE_VERIFIER_PATTERN.fullmatch(code_verifier)
        challenge = make_code_challenge(code_verifier) if is_valid else ""
        request = AuthorizationRequest(client.id, redirect_uri, challenge)
        async with self.database.begin() as repositories:
            begun = await self._redeem(repositories, self.token_generator.digest(code), request)
        if begun is None:
            detail = (
                "The code is unknown, expired or already used, or it was issued for another "
                "client, redirect URI or code challenge. Sign in again."
            )
            raise InvalidGrant(detail)
        return issue_tokens(self.access_token_issuer, *begun)

    async def _redeem(
        self, repositories: Repositories, digest: bytes, request: AuthorizationRequest
    ) -> tuple[Session, str] | None:
        code = await repositories.authorization_codes.find(digest)
        if code is None or not await _lock_active_user(repositories, code.user_id):
            return None
        session_id, now = self.id_generator.new(), self.clock.now()
        if await repositories.authorization_codes.redeem(digest, request, session_id, now):
            client_id = str(request.client_id)
            return await self.begin_session(repositories, code.user_id, client_id, session_id)
        await self._end_session(repositories, digest)
        return None

    async def _end_session(self, repositories: Repositories, digest: bytes) -> None:
        """End the session of a code that is used again: it may be stolen (RFC 9700)."""
        code = await repositories.authorization_codes.find(digest)
        if code is not None and code.session_id is not None:
            actor, action = Actor.user(code.user_id), AuditAction.SESSION_REUSED
            await self.record_audit(repositories, actor, action, code.session_id)
            await repositories.sessions.revoke(code.session_id)
            self.security_log.warn("authorization code reused", user_id=str(code.user_id))


async def _lock_active_user(repositories: Repositories, user_id: UUID) -> bool:
    """Lock an account; return False if it is erased or blocked."""
    user = await repositories.users.lock(user_id)
    return user is not None and user.blocked_at is None
