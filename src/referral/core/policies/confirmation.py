"""What follows once nothing is left to confirm of an address."""

from dataclasses import dataclass, replace

from referral.core.entities.email_links import Purpose
from referral.core.entities.jobs import Enriching, Job, WelcomeMail
from referral.core.entities.users import Role, User, Verification
from referral.core.policies.attribution import SettleReferral
from referral.core.ports.repositories import Repositories
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class Confirm:
    """Store that a user has confirmed the address, with all that follows from it."""

    enrichment: Enrichment | None
    settle: SettleReferral
    verification: Verification

    async def __call__(self, records: Repositories, user: User) -> list[User]:
        """Confirm a locked user; return whose look-ups to invalidate after the commit."""
        await records.users.save(replace(user, email_verified=True, confirm_by=None))
        await records.one_time_tokens.forget(user.id, Purpose.CONFIRM)
        if not self.verification.is_done_for(user):
            await records.jobs.enqueue(*jobs_after_confirmation(user, self.enrichment))
        referrer = await self.settle.confirm(records, user)
        return [user] if referrer is None else [user, referrer]


def jobs_after_confirmation(user: User, enrichment: Enrichment | None) -> list[Job]:
    """Return the jobs to queue in the transaction that confirms an address.

    Where addresses are not verified that is the registration. Third parties are asked for a
    profile only from here on: it is the mailbox's owner's, and must not be shown to anyone else.
    """
    jobs: list[Job] = [WelcomeMail(user.id)]
    if enrichment is not None and user.role is not Role.ADMIN:
        jobs.append(Enriching(user.id))
    return jobs
