"""What is publicly known about a new user."""

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
    """Look a user up, and store what is found as their profile."""

    clock: Clock
    database: Database
    enrichment: Enrichment | None
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, job: EnrichProfileJob, context: JobContext) -> None:
        """Store it, if there is anything; raises `Later` to ask again.

        An address that has to be confirmed first is not asked about: its confirmation queues
        another job.
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
            # Held, so that an erasure comes before, and is seen, or after, and takes it away.
            if await repositories.users.lock(user.id) is not None:
                await repositories.profiles.save(user.id, profile, self.clock.now())
