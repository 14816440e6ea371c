"""What is publicly known about a new user."""

from dataclasses import dataclass

from referral.core.entities.jobs import Enriching, JobContext
from referral.core.entities.users import Verification
from referral.core.errors import Unavailable
from referral.core.policies.third_party_retries import RESPONSE_TIMEOUT, Fault, ask_again
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class Enrich:
    """Look a user up, and store what is found as their profile."""

    clock: Clock
    database: Database
    enrichment: Enrichment | None
    verification: Verification

    async def __call__(self, job: Enriching, run: JobContext) -> None:
        """Store it, if there is anything; raises `Later` to ask again.

        An address that has to be confirmed first is not asked about: its confirmation queues
        another job.
        """
        async with self.database.read() as records:
            user = await records.users.get(job.user_id)
        if user is None or self.enrichment is None or not self.verification.is_done_for(user):
            return
        try:
            profile = await self.enrichment.find(user.mailbox, RESPONSE_TIMEOUT)
        except Unavailable:
            ask_again(run, Fault.UNANSWERED)
            return
        if profile is None:
            return
        async with self.database.begin() as records:
            # Held, so that an erasure comes before, and is seen, or after, and takes it away.
            if await records.users.lock(user.id) is not None:
                await records.profiles.save(user.id, profile, self.clock.now())
