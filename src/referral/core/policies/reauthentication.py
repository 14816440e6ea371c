"""Account locks before changes, and password verification before sensitive ones."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.passwords import password_forms
from referral.core.entities.users import User
from referral.core.errors import AccountBlocked, Unauthenticated, WeakPassword, WrongPassword
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import PasswordHasher


@dataclass(frozen=True, slots=True)
class Reauthenticate:
    """Verify the password of a signed-in user."""

    database: Database
    password_hasher: PasswordHasher

    async def __call__(self, user_id: UUID, password: str, field: str) -> User:
        """Return the user; raises `WrongPassword`, `AccountBlocked` or `Unauthenticated`."""
        async with self.database.read() as repositories:
            user = require_active_account(await repositories.users.find(user_id))
        if not await password_matches(self.password_hasher, user, password):
            raise WrongPassword(field=field)
        return user


async def password_matches(password_hasher: PasswordHasher, user: User, password: str) -> bool:
    """Return whether a password is the user's."""
    try:
        forms = password_forms(password)
    except WeakPassword:
        return False
    for form in forms:
        if await password_hasher.verify(form, user.password_hash):
            return True
    return False


async def lock_account(repositories: Repositories, user_id: UUID) -> User:
    """Lock the caller's account before a change.

    Raises `Unauthenticated` for an erased and `AccountBlocked` for a blocked account: the access
    token stays valid for some minutes after either.
    """
    return require_active_account(await repositories.users.lock(user_id))


async def lock_reauthenticated(repositories: Repositories, user: User, field: str) -> User:
    """Lock the account, or raise `WrongPassword` if its password changed since verification."""
    locked = await lock_account(repositories, user.id)
    if locked.password_hash != user.password_hash:
        raise WrongPassword(field=field)
    return locked


def require_active_account(user: User | None) -> User:
    """Return the caller's account; raises `Unauthenticated` or `AccountBlocked`."""
    if user is None:
        raise Unauthenticated
    if user.blocked_at is not None:
        raise AccountBlocked
    return user
