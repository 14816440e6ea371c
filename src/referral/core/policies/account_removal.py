"""Account removal, as requested by the owner or the mailbox's owner, or after a deadline."""

from dataclasses import dataclass

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import User
from referral.core.policies.attribution import ResolveReferral
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.email_fingerprints import email_fingerprints
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class RemoveAccount:
    """Delete an account's personal data. Referral counts and reserved code texts remain."""

    clock: Clock
    fingerprinter: Fingerprinter
    record_audit: RecordAudit
    resolve_referral: ResolveReferral

    async def __call__(self, repositories: Repositories, user: User, actor: Actor) -> list[User]:
        """Remove a locked account.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        now, fingerprints = self.clock.now(), email_fingerprints(self.fingerprinter, user)
        pending = await repositories.referrals.lock_pending(user.id)
        # One statement, in order of id: users who referred each other would deadlock otherwise.
        await repositories.codes.lock_all(user.id, pending.code_id if pending else None)
        owners = await self.resolve_referral.reject(repositories, pending) if pending else []
        await self._save_referred_email(repositories, user, fingerprints[0])
        await self.record_audit(repositories, actor, AuditAction.USER_ERASED, user.id)
        await repositories.codes.delete_all(user.id, now)
        await repositories.sessions.revoke_all(user.id)
        await repositories.idempotency.delete(user.id)
        await repositories.one_time_tokens.delete(user.id)
        await repositories.profiles.delete(user.id)
        await repositories.verification_results.delete(fingerprints)
        await repositories.users.erase(user.id, now)
        return [user, *owners]

    async def _save_referred_email(
        self, repositories: Repositories, user: User, fingerprint: bytes
    ) -> None:
        """Store the address's fingerprint if its referral was confirmed."""
        referral = await repositories.referrals.find_by_referred(user.id)
        if referral is not None and referral.status is ReferralStatus.CONFIRMED:
            await repositories.referred_emails.add(fingerprint, referral.joined_at)
