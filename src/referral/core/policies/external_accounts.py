"""Accounts that another service creates for its users.

The service may vouch for an address: it has confirmed it itself.
"""

from dataclasses import dataclass, replace

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.events import EventType, registration_events, user_event
from referral.core.entities.jobs import ConfirmationMailJob, Job, VerifyEmailJob
from referral.core.entities.users import (
    NO_PASSWORD,
    EmailAddress,
    EmailConfirmationPolicy,
    Locale,
    Role,
    User,
)
from referral.core.errors import EmailTaken
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.email_confirmation import jobs_after_confirmation
from referral.core.policies.email_deliverability import VerifyEmailAtSignup
from referral.core.policies.email_fingerprints import email_fingerprints, save_referred_email
from referral.core.policies.event_recording import RecordEvents
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock, IdGenerator
from referral.core.ports.third_parties import Enrichment

EMAIL_OF_ANOTHER = "Another account has this e-mail address."


@dataclass(frozen=True, slots=True)
class ReleaseEmail:
    """Make an address available to the user whom another service vouches for.

    The unconfirmed account that somebody registered with it is erased, as by `DisownEmail`.
    """

    remove_account: RemoveAccount

    async def __call__(
        self, repositories: Repositories, email_key: str, actor: Actor
    ) -> list[User]:
        """Erase the account, if any; raises `EmailTaken` if it must not be erased.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        found = await repositories.users.find_by_email(email_key)
        if found is None:
            return []
        # Before the lock: requests that swap the addresses of two users would deadlock.
        _require_replaceable(found)
        owner = await repositories.users.lock(found.id)
        if owner is None or owner.email_key != email_key:
            return []
        _require_replaceable(owner)
        owners = await self.remove_account(repositories, owner, actor)
        # The mails to that account must not count against the new one.
        await repositories.mail_quota.reset(email_key)
        return owners


def _require_replaceable(owner: User) -> None:
    if not owner.is_replaceable:
        raise EmailTaken(EMAIL_OF_ANOTHER, field="email")


@dataclass(frozen=True, slots=True)
class EnqueueAddressJobs:
    """Enqueue the jobs that follow from a new address of another service's user."""

    enrichment: Enrichment | None
    verify_at_signup: VerifyEmailAtSignup
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self, repositories: Repositories, user: User) -> None:
        """Enqueue the confirmation mail, or else what follows a confirmation."""
        jobs: list[Job] = [ConfirmationMailJob(user.id)]
        if self.confirmation_policy.is_satisfied_by(user):
            jobs = jobs_after_confirmation(user, self.enrichment)
        if not user.email_verified and self.verify_at_signup.needs_recheck(user):
            jobs.append(VerifyEmailJob(user.id))
        await repositories.jobs.enqueue(*jobs)


@dataclass(frozen=True, slots=True)
class CreateExternalAccount:
    """Create an account with an external id and without a password."""

    clock: Clock
    credit_referrer: CreditReferrer
    enqueue_address_jobs: EnqueueAddressJobs
    id_generator: IdGenerator
    record_audit: RecordAudit
    record_events: RecordEvents
    release_email: ReleaseEmail

    def draft(
        self, external_id: str, email: EmailAddress, *, vouched: bool, locale: Locale = Locale.EN
    ) -> User:
        """Return the account to create; it need not be confirmed in time."""
        return User(
            id=self.id_generator.new(),
            email=email.original,
            email_key=email.email_key,
            password_hash=NO_PASSWORD,
            role=Role.MEMBER,
            locale=locale,
            email_verified=vouched,
            notify_on_referral=True,
            created_at=self.clock.now(),
            external_id=external_id,
        )

    async def __call__(
        self,
        repositories: Repositories,
        user: User,
        actor: Actor,
        referral_code: str | None = None,
    ) -> list[User]:
        """Store a drafted account.

        Returns the users whose cached lookups the caller invalidates after the commit. Raises
        `EmailTaken`, `ExternalIdTaken` or `ReferralCodeUnusable`.
        """
        owners: list[User] = []
        if user.email_verified:
            owners += await self.release_email(repositories, user.email_key, actor)
        await self.record_audit(repositories, actor, AuditAction.USER_CREATED, user.id)
        await repositories.users.add(user)
        await self.enqueue_address_jobs(repositories, user)
        if referral_code is None:
            await self.record_events(repositories, *registration_events(user))
        else:
            owners += await self.credit_referrer(repositories, user, referral_code, registers=True)
        return owners


@dataclass(frozen=True, slots=True)
class ChangeEmail:
    """Give an account a new address, in the caller's transaction.

    Whatever was sent to the old address, or found about it, ends with it. So do the password and
    the sessions: whoever reads the old mailbox could have set the password.
    """

    clock: Clock
    enqueue_address_jobs: EnqueueAddressJobs
    fingerprinter: Fingerprinter
    record_audit: RecordAudit
    record_events: RecordEvents
    release_email: ReleaseEmail
    resolve_referral: ResolveReferral

    async def __call__(
        self, repositories: Repositories, user: User, changed: User, actor: Actor
    ) -> list[User]:
        """Store the changed account in place of the locked one; raises `EmailTaken`.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        owners = [user, changed]
        if changed.email_verified:
            owners += await self.release_email(repositories, changed.email_key, actor)
        elif await repositories.users.find_by_email(changed.email_key):
            # The unique index would refuse it too, but requests that swap addresses deadlock there.
            raise EmailTaken(EMAIL_OF_ANOTHER, field="email")
        fingerprints = email_fingerprints(self.fingerprinter, user)
        await save_referred_email(repositories, user, fingerprints[0])
        if changed.email_verified:
            verified = user_event(EventType.USER_VERIFIED, changed, self.clock.now())
            await self.record_events(repositories, verified)
        await self._end_access(repositories, user, actor)
        await repositories.users.save(replace(changed, password_hash=NO_PASSWORD))
        await repositories.one_time_tokens.delete(user.id)
        await repositories.profiles.delete(user.id)
        await repositories.verification_results.delete(fingerprints)
        await self.enqueue_address_jobs(repositories, changed)
        if changed.email_verified:
            owners += await self.resolve_referral.confirm(repositories, changed)
        return owners

    async def _end_access(self, repositories: Repositories, user: User, actor: Actor) -> None:
        if user.password_hash != NO_PASSWORD:
            action = AuditAction.PASSWORD_REMOVED
            await self.record_audit(repositories, actor, action, user.id)
        await repositories.sessions.revoke_all(user.id)
