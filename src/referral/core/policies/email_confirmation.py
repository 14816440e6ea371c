"""What follows once nothing is left to confirm of an address."""

from dataclasses import dataclass, replace

from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.jobs import EnrichProfileJob, Job, WelcomeMailJob
from referral.core.entities.users import EmailConfirmationPolicy, Role, User
from referral.core.policies.attribution import ResolveReferral
from referral.core.ports.repositories import Repositories
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class MarkEmailConfirmed:
    """Store that a user has confirmed the address, with all that follows from it."""

    enrichment: Enrichment | None
    resolve_referral: ResolveReferral
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, repositories: Repositories, user: User) -> list[User]:
        """Confirm a locked user; return whose look-ups to invalidate after the commit."""
        await repositories.users.save(replace(user, email_verified=True, confirm_by=None))
        await repositories.one_time_tokens.delete(user.id, TokenPurpose.CONFIRM)
        if not self.confirmation_policy.is_satisfied_by(user):
            await repositories.jobs.enqueue(*jobs_after_confirmation(user, self.enrichment))
        referrer = await self.resolve_referral.confirm(repositories, user)
        return [user] if referrer is None else [user, referrer]


def jobs_after_confirmation(user: User, enrichment: Enrichment | None) -> list[Job]:
    """Return the jobs to queue in the transaction that confirms an address.

    Where addresses are not verified that is the registration. Third parties are asked for a
    profile only from here on: it is the mailbox's owner's, and must not be shown to anyone else.
    """
    jobs: list[Job] = [WelcomeMailJob(user.id)]
    if enrichment is not None and user.role is not Role.ADMIN:
        jobs.append(EnrichProfileJob(user.id))
    return jobs
