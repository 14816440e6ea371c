"""Erasure of accounts."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.audit import Actor
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import Reauthenticate, lock_reauthenticated
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class EraseAccount:
    """Erase the caller's account after verifying the password."""

    invalidate_lookup: InvalidateLookup
    database: Database
    reauthenticate: Reauthenticate
    remove_account: RemoveAccount

    async def __call__(self, user_id: UUID, password: str) -> None:
        """Erase the account; raises `WrongPassword`, `AccountBlocked` or `Unauthenticated`."""
        user = await self.reauthenticate(user_id, password, "password")
        async with self.database.begin() as repositories:
            user = await lock_reauthenticated(repositories, user, "password")
            owners = await self.remove_account(repositories, user, Actor.user(user.id))
        await self.invalidate_lookup(*owners)
