"""Leaving, and taking along what is stored."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import Code
from referral.core.entities.referrals import Referral, ReferralListItem
from referral.core.entities.sessions import Session
from referral.core.entities.users import Profile, User
from referral.core.errors import Unauthenticated
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import Reauthenticate, lock_proven
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock

CHUNK_SIZE = 1000
"""How many referrals are read at once."""


@dataclass(frozen=True, slots=True)
class EraseAccount:
    """Erase one's own account, which takes the password."""

    clear: InvalidateLookup
    database: Database
    prove: Reauthenticate
    remove: RemoveAccount

    async def __call__(self, user_id: UUID, password: str) -> None:
        """Erase the account, or raise `WrongPassword` or `Unauthenticated`."""
        user = await self.prove(user_id, password, "password")
        async with self.database.begin() as records:
            user = await lock_proven(records, user, "password")
            owners = await self.remove(records, user)
        await self.clear(*owners)


@dataclass(frozen=True, slots=True)
class Export:
    """All that is stored about a user, but what the password and tokens are checked against."""

    user: User
    joined_by: Referral | None
    codes: list[Code]
    referrals: list[ReferralListItem]
    sessions: list[Session]
    profile: Profile | None
    now: datetime


@dataclass(frozen=True, slots=True)
class ExportAccount:
    """Put together all that is stored about a user."""

    clock: Clock
    database: Database

    async def __call__(self, user_id: UUID) -> Export:
        """Return it, or raise `Unauthenticated` when the account is gone."""
        async with self.database.read() as records:
            user = await records.users.get(user_id)
            if user is None:
                raise Unauthenticated
            return Export(
                user=user,
                joined_by=await records.referrals.of(user_id),
                codes=await records.codes.all(user_id),
                referrals=await _referrals(records, user_id),
                sessions=await records.sessions.all(user_id),
                profile=await records.profiles.of(user_id),
                now=self.clock.now(),
            )


async def _referrals(records: Repositories, user_id: UUID) -> list[ReferralListItem]:
    found: list[ReferralListItem] = []
    after: UUID | None = None
    while True:
        stretch = await records.referrals.newest(
            user_id, status=None, after=after, limit=CHUNK_SIZE
        )
        found += stretch
        if len(stretch) < CHUNK_SIZE:
            return found
        after = stretch[-1].referral_id
