"""Login sessions and authorization codes, which are stored as digests.

`SessionRepository.revoke_all` ends those of a user. As in `repositories`, `find` returns None for
missing rows; `prune` deletes a bounded number of rows, and returns whether there may be more.
"""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.authorization_codes import AuthorizationCode, AuthorizationRequest
from referral.core.entities.login_sessions import LoginSession


class LoginSessionRepository(Protocol):
    """Login sessions of browsers."""

    async def add(self, login_session: LoginSession) -> None: ...

    async def find(self, digest: bytes, now: datetime) -> LoginSession | None:
        """Return a login session that has not expired."""
        ...

    async def list_all(self, user_id: UUID) -> list[LoginSession]: ...

    async def end(self, digest: bytes) -> UUID | None:
        """End a login session; return its user, or None if there is no such login session."""
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of the expired login sessions."""
        ...


class AuthorizationCodeRepository(Protocol):
    """Authorization codes (RFC 6749, section 4.1)."""

    async def add(self, code: AuthorizationCode) -> None: ...

    async def find(self, digest: bytes) -> AuthorizationCode | None: ...

    async def redeem(
        self, digest: bytes, request: AuthorizationRequest, session_id: UUID, now: datetime
    ) -> bool:
        """Use a code for a session that the transaction stores afterwards.

        Returns False and changes nothing if the code is used or expired, or was issued for another
        request.
        """
        ...

    async def prune(self, now: datetime) -> bool:
        """Delete some of the codes that expired unused."""
        ...
