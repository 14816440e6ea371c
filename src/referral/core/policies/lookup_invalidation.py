"""Invalidation of cached lookups, retried by a job if it fails."""

from contextlib import suppress
from dataclasses import dataclass

from referral.core.entities.jobs import InvalidateLookupJob
from referral.core.entities.users import User
from referral.core.errors import Unavailable
from referral.core.ports.caching import LookupCache
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class InvalidateLookup:
    """Invalidate the cached lookups of owners, after the commit of a change to their codes."""

    cache: LookupCache
    database: Database

    async def __call__(self, *owners: User) -> None:
        """Invalidate now, or enqueue a job; never raises, as the change is committed already."""
        for owner in owners:
            await self._invalidate(owner)

    async def _invalidate(self, owner: User) -> None:
        if await self.cache.invalidate(owner.email_key):
            return
        # If the job is not enqueued either, the entry expires within the guaranteed time.
        with suppress(Unavailable):
            async with self.database.begin() as repositories:
                await repositories.jobs.enqueue(InvalidateLookupJob(owner.id))


@dataclass(frozen=True, slots=True)
class RetryLookupInvalidation:
    """Retry an invalidation that `InvalidateLookup` could not complete."""

    cache: LookupCache
    database: Database

    async def __call__(self, job: InvalidateLookupJob) -> None:
        """Invalidate, or raise `Unavailable` to be retried. An erased owner has no address."""
        async with self.database.read() as repositories:
            owner = await repositories.users.find(job.user_id)
        if owner is not None and not await self.cache.invalidate(owner.email_key):
            raise Unavailable
