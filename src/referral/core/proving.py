"""Being asked for one's password once more, before what cannot be undone."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.errors import Unauthenticated, WeakPassword, WrongPassword
from referral.core.model import User, normal_password
from referral.core.ports import Database, Passwords, Records


@dataclass(frozen=True, slots=True)
class ProveOwnership:
    """Check the password of someone who is signed in."""

    database: Database
    passwords: Passwords

    async def __call__(self, user_id: UUID, password: str, pointer: str) -> User:
        """Return the user, or raise `WrongPassword`, or `Unauthenticated` for who is gone."""
        async with self.database.read() as records:
            user = await records.users.get(user_id)
        if user is None:
            raise Unauthenticated
        if not await self._matches(password, user.password_hash):
            raise WrongPassword(pointer=pointer)
        return user

    async def _matches(self, password: str, hashed: str) -> bool:
        try:
            return await self.passwords.verify(normal_password(password), hashed)
        except WeakPassword:
            return False


async def lock_proven(records: Records, user: User, pointer: str) -> User:
    """Hold the account, or raise `WrongPassword` when the password was changed meanwhile."""
    locked = await records.users.lock(user.id)
    if locked is None:
        raise Unauthenticated
    if locked.password_hash != user.password_hash:
        raise WrongPassword(pointer=pointer)
    return locked
