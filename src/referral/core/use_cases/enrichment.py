"""Profile enrichment."""

from dataclasses import dataclass

from referral.core.entities.jobs import EnrichProfileJob, JobContext
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.errors import Unavailable
from referral.core.policies.third_party_retries import (
    THIRD_PARTY_TIMEOUT,
    ThirdPartyFailure,
    schedule_retry,
)
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class EnrichProfile:
    """Fetch a user's public profile from a third party and store it."""

    clock: Clock
    database: Database
    enrichment: Enrichment | None
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, job: EnrichProfileJob, context: JobContext) -> None:
        """Store the profile, if any; raises `RescheduleJob` to retry later.

        The job does nothing for an unconfirmed address: its confirmation enqueues another job.
        """
        async with self.database.read() as repositories:
            user = await repositories.users.find(job.user_id)
        if (
            user is None
            or self.enrichment is None
            or not self.confirmation_policy.is_satisfied_by(user)
        ):
            return
        try:
            profile = await self.enrichment.find(user.delivery_email, THIRD_PARTY_TIMEOUT)
        except Unavailable:
            schedule_retry(context, ThirdPartyFailure.NO_RESPONSE)
            return
        if profile is None:
            return
        async with self.database.begin() as repositories:
            # Serialize with an erasure: it commits first and is seen, or deletes the profile.
            if await repositories.users.lock(user.id) is not None:
                await repositories.profiles.save(user.id, profile, self.clock.now())
