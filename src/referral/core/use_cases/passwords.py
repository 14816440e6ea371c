"""Changing one's password."""

from collections.abc import Container
from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.email_links import Purpose
from referral.core.entities.passwords import accept_password
from referral.core.entities.users import Address
from referral.core.policies.reauthentication import Reauthenticate, lock_proven
from referral.core.ports.repositories import Database
from referral.core.ports.security import PasswordHasher

CURRENT = "current_password"


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Trade the current password for a new one, and end every other session."""

    common_passwords: Container[str]
    database: Database
    passwords: PasswordHasher
    prove: Reauthenticate

    async def __call__(
        self, user_id: UUID, session_id: UUID | None, current: str, wanted: str
    ) -> None:
        """Change it, or raise `WrongPassword`, `WeakPassword` or `Unauthenticated`."""
        user = await self.prove(user_id, current, CURRENT)
        address = Address(user.email, user.email_key)
        password = accept_password(wanted, address, self.common_passwords, field="new_password")
        hashed = await self.passwords.hash(password)
        async with self.database.begin() as records:
            locked = await lock_proven(records, user, CURRENT)
            await records.users.save(replace(locked, password_hash=hashed))
            await records.one_time_tokens.forget(user_id, Purpose.RESET)
            await records.sessions.end_all(user_id, but=session_id)
