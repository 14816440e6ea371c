"""Login sessions: the logins of browsers on the pages."""

from dataclasses import dataclass

from referral.core.entities.account_view import MAX_RECENT_REFERRALS, AccountView
from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.login_sessions import LOGIN_SESSION_LIFETIME, LoginSession
from referral.core.entities.users import User
from referral.core.errors import Unauthenticated
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.password_login import PasswordLogin
from referral.core.ports.repositories import Database, ReadModel, Repositories
from referral.core.ports.security import TokenGenerator
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class BeginLoginSession:
    """Log a browser in by e-mail address and password."""

    clock: Clock
    password_login: PasswordLogin
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(
        self, username: str, password: str, client_ip: str, replaced_token: str | None
    ) -> str:
        """Return a new token; the browser's earlier login session ends.

        A token that the browser had before the login is never kept, since somebody else may have
        set it. Raises `TooManyRequests` or `InvalidGrant`.
        """
        token = self.token_generator.new()

        async def begin(repositories: Repositories, user: User) -> str:
            if replaced_token is not None:
                await repositories.login_sessions.end(self.token_generator.digest(replaced_token))
            actor, action = Actor.user(user.id), AuditAction.SESSION_STARTED
            await self.record_audit(repositories, actor, action, user.id)
            now, digest = self.clock.now(), self.token_generator.digest(token)
            await repositories.login_sessions.add(
                LoginSession(digest, user.id, now, now + LOGIN_SESSION_LIFETIME)
            )
            return token

        return await self.password_login(username, password, client_ip, begin)


@dataclass(frozen=True, slots=True)
class FindLoginSession:
    """Find the login session of a browser."""

    clock: Clock
    database: Database
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> LoginSession | None:
        """Return the login session, or None if it has ended."""
        digest = self.token_generator.digest(token)
        async with self.database.read() as repositories:
            return await repositories.login_sessions.find(digest, self.clock.now())


@dataclass(frozen=True, slots=True)
class ShowLoggedInAccount:
    """Return the account of the user who is logged in, in one query."""

    clock: Clock
    read_model: ReadModel
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> AccountView:
        """Return the account, or raise `Unauthenticated` if the login session has ended."""
        account = await self.read_model.find_logged_in_account(
            self.token_generator.digest(token), MAX_RECENT_REFERRALS, self.clock.now()
        )
        if account is None:
            raise Unauthenticated
        return account


@dataclass(frozen=True, slots=True)
class EndLoginSession:
    """Log a browser out."""

    database: Database
    record_audit: RecordAudit
    token_generator: TokenGenerator

    async def __call__(self, token: str) -> None:
        """End the login session; an unknown token is ignored."""
        async with self.database.begin() as repositories:
            ended = await repositories.login_sessions.end(self.token_generator.digest(token))
            if ended is not None:
                actor, action = Actor.user(ended), AuditAction.SESSION_ENDED
                await self.record_audit(repositories, actor, action, ended)
