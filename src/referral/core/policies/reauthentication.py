"""Whose account it is: the lock before a change, and the password before what cannot be undone."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.passwords import normalize_password
from referral.core.entities.users import User
from referral.core.errors import AccountBlocked, Unauthenticated, WeakPassword, WrongPassword
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import PasswordHasher


@dataclass(frozen=True, slots=True)
class Reauthenticate:
    """Check the password of someone who is signed in."""

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
    """Tell whether a password is the user's."""
    try:
        return await password_hasher.verify(normalize_password(password), user.password_hash)
    except WeakPassword:
        return False


async def lock_account(repositories: Repositories, user_id: UUID) -> User:
    """Lock the account of a caller before it is changed.

    Raises `Unauthenticated` for an erased account and `AccountBlocked` for a blocked one: the
    access token outlives both by some minutes.
    """
    return require_active_account(await repositories.users.lock(user_id))


async def lock_reauthenticated(repositories: Repositories, user: User, field: str) -> User:
    """Hold the account, or raise `WrongPassword` when the password was changed meanwhile."""
    locked = await lock_account(repositories, user.id)
    if locked.password_hash != user.password_hash:
        raise WrongPassword(field=field)
    return locked


def require_active_account(user: User | None) -> User:
    """Return the account of a caller, or raise what `lock_account` does."""
    if user is None:
        raise Unauthenticated
    if user.blocked_at is not None:
        raise AccountBlocked
    return user
