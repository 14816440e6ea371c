"""Having look-ups forget an address, now or, where that fails, later."""

from contextlib import suppress
from dataclasses import dataclass

from referral.core.entities.jobs import InvalidateLookupJob
from referral.core.entities.users import User
from referral.core.errors import Unavailable
from referral.core.ports.caching import LookupCache
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class InvalidateLookup:
    """Have an owner's address looked up anew: for after the commit of a change of their codes."""

    cache: LookupCache
    database: Database

    async def __call__(self, *owners: User) -> None:
        """Clear now, or leave it to a job; the change is done and does not fail any more."""
        for owner in owners:
            await self._invalidate(owner)

    async def _invalidate(self, owner: User) -> None:
        if await self.cache.invalidate(owner.email_key):
            return
        # Without the job the entry ends by itself, soon enough for what is promised.
        with suppress(Unavailable):
            async with self.database.begin() as repositories:
                await repositories.jobs.enqueue(InvalidateLookupJob(owner.id))


@dataclass(frozen=True, slots=True)
class RetryLookupInvalidation:
    """Do what `InvalidateLookup` could not."""

    cache: LookupCache
    database: Database

    async def __call__(self, job: InvalidateLookupJob) -> None:
        """Clear, or raise `Unavailable`, to be tried again. Who was erased has no address."""
        async with self.database.read() as repositories:
            owner = await repositories.users.find(job.user_id)
        if owner is not None and not await self.cache.invalidate(owner.email_key):
            raise Unavailable
