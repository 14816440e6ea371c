"""Effects of a confirmed e-mail address."""

from dataclasses import dataclass, replace

from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.events import EventType, user_event
from referral.core.entities.jobs import EnrichProfileJob, Job, WelcomeMailJob
from referral.core.entities.users import EmailConfirmationPolicy, Role, User
from referral.core.policies.attribution import ResolveReferral
from referral.core.policies.event_recording import RecordEvents
from referral.core.ports.repositories import Repositories
from referral.core.ports.system import Clock
from referral.core.ports.third_parties import Enrichment


@dataclass(frozen=True, slots=True)
class MarkEmailConfirmed:
    """Mark a user's e-mail address as confirmed, with all effects of it."""

    clock: Clock
    enrichment: Enrichment | None
    record_events: RecordEvents
    resolve_referral: ResolveReferral
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, repositories: Repositories, user: User) -> list[User]:
        """Update a locked user.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        verified = user_event(EventType.USER_VERIFIED, user, self.clock.now())
        await self.record_events(repositories, verified)
        await repositories.users.save(replace(user, email_verified=True, confirm_by=None))
        await repositories.one_time_tokens.delete(user.id, TokenPurpose.CONFIRM)
        if not self.confirmation_policy.is_satisfied_by(user):
            await repositories.jobs.enqueue(*jobs_after_confirmation(user, self.enrichment))
        return [user, *await self.resolve_referral.confirm(repositories, user)]


def jobs_after_confirmation(user: User, enrichment: Enrichment | None) -> list[Job]:
    """Return the jobs to enqueue when an address is confirmed.

    If confirmation is not required, the registration enqueues them. The profile is not fetched
    before the confirmation, because it is personal data of the mailbox's owner, who may not be the
    user. The user of a product knows the product, and gets no welcome mail from this service.
    """
    jobs: list[Job] = [] if user.external_id else [WelcomeMailJob(user.id)]
    if enrichment is not None and user.role is not Role.ADMIN:
        jobs.append(EnrichProfileJob(user.id))
    return jobs
