"""Password change."""

from collections.abc import Container
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.passwords import validate_new_password
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.reauthentication import Reauthenticate, lock_reauthenticated
from referral.core.ports.repositories import Database
from referral.core.ports.security import PasswordHasher

REAUTHENTICATION_FIELD = "current_password"


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Change the caller's password, and revoke all other sessions."""

    common_passwords: Container[str]
    database: Database
    password_hasher: PasswordHasher
    reauthenticate: Reauthenticate
    record_audit: RecordAudit

    async def __call__(
        self, user_id: UUID, session_id: UUID | None, current_password: str, new_password: str
    ) -> None:
        """Change the password.

        Raises `WrongPassword`, `WeakPassword`, `AccountBlocked` or `Unauthenticated`.
        """
        user = await self.reauthenticate(user_id, current_password, REAUTHENTICATION_FIELD)
        password = validate_new_password(
            new_password, user.email_address, self.common_passwords, field="new_password"
        )
        password_hash = await self.password_hasher.hash(password)
        async with self.database.begin() as repositories:
            locked = await lock_reauthenticated(repositories, user, REAUTHENTICATION_FIELD)
            actor, action = Actor.user(user_id), AuditAction.PASSWORD_CHANGED
            await self.record_audit(repositories, actor, action, user_id)
            await repositories.users.save(replace(locked, password_hash=password_hash))
            await repositories.one_time_tokens.delete(user_id, TokenPurpose.RESET)
            await repositories.sessions.revoke_all(user_id, except_id=session_id)
