"""Fakes of the repositories of login sessions and authorization codes."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.authorization_codes import AuthorizationCode, AuthorizationRequest
from referral.core.entities.login_sessions import LoginSession
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeLoginSessionRepository:
    """Login sessions in a dict."""

    tables: Tables

    async def add(self, login_session: LoginSession) -> None:
        known = login_session.user_id in self.tables.users
        self.tables.require(is_satisfied=known, constraint="user_id")
        self.tables.login_sessions[login_session.digest] = login_session

    async def find(self, digest: bytes, now: datetime) -> LoginSession | None:
        found = self.tables.login_sessions.get(digest)
        return found if found and found.expires_at > now else None

    async def list_all(self, user_id: UUID) -> list[LoginSession]:
        own = [one for one in self.tables.login_sessions.values() if one.user_id == user_id]
        return sorted(own, key=lambda one: (one.created_at, one.digest))

    async def end(self, digest: bytes) -> UUID | None:
        ended = self.tables.login_sessions.pop(digest, None)
        return ended.user_id if ended else None

    async def prune(self, now: datetime) -> bool:
        for one in list(self.tables.login_sessions.values()):
            if one.expires_at <= now:
                del self.tables.login_sessions[one.digest]
        return False


@dataclass(frozen=True)
class FakeAuthorizationCodeRepository:
    """Authorization codes in a dict."""

    tables: Tables

    async def add(self, code: AuthorizationCode) -> None:
        self.tables.require(is_satisfied=code.user_id in self.tables.users, constraint="user_id")
        self.tables.authorization_codes[code.digest] = code

    async def find(self, digest: bytes) -> AuthorizationCode | None:
        return self.tables.authorization_codes.get(digest)

    async def redeem(
        self, digest: bytes, request: AuthorizationRequest, session_id: UUID, now: datetime
    ) -> bool:
        code = self.tables.authorization_codes.get(digest)
        if code is None or code.session_id is not None or code.expires_at <= now:
            return False
        if request != AuthorizationRequest(code.client_id, code.redirect_uri, code.code_challenge):
            return False
        self.tables.authorization_codes[digest] = replace(code, session_id=session_id)
        return True

    async def prune(self, now: datetime) -> bool:
        for one in list(self.tables.authorization_codes.values()):
            if one.session_id is None and one.expires_at <= now:
                del self.tables.authorization_codes[one.digest]
        return False
