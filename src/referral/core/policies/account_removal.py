"""Account removal, as requested by the owner or the mailbox's owner, or after a deadline."""

from dataclasses import dataclass
from datetime import datetime

from referral.core.entities.audit import Actor, AuditAction
from referral.core.entities.codes import Code
from referral.core.entities.events import EventType, code_event, user_erased
from referral.core.entities.users import User
from referral.core.policies.attribution import ResolveReferral
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.email_fingerprints import email_fingerprints, save_referred_email
from referral.core.policies.event_recording import RecordEvents
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class RemoveAccount:
    """Delete an account's personal data. Referral counts and reserved code texts remain."""

    clock: Clock
    fingerprinter: Fingerprinter
    record_audit: RecordAudit
    record_events: RecordEvents
    resolve_referral: ResolveReferral

    async def __call__(self, repositories: Repositories, user: User, actor: Actor) -> list[User]:
        """Remove a locked account.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        now, fingerprints = self.clock.now(), email_fingerprints(self.fingerprinter, user)
        pending = await repositories.referrals.lock_pending(user.id)
        # One statement, in order of id: users who referred each other would deadlock otherwise.
        codes = await repositories.codes.lock_all(user.id, pending.code_id if pending else None)
        owners = await self.resolve_referral.reject(repositories, pending) if pending else []
        await save_referred_email(repositories, user, fingerprints[0])
        await self.record_audit(repositories, actor, AuditAction.USER_ERASED, user.id)
        await self._record_deletions(repositories, codes, now)
        await repositories.codes.delete_all(user.id, now)
        await repositories.sessions.revoke_all(user.id)
        await repositories.networks.delete(user.id)
        await repositories.idempotency.delete(user.id)
        await repositories.one_time_tokens.delete(user.id)
        await repositories.profiles.delete(user.id)
        await repositories.verification_results.delete(fingerprints)
        await repositories.events.remove_external_id(user.id)
        await self.record_events(repositories, user_erased(user.id, now))
        await repositories.users.erase(user.id, now)
        return [user, *owners]

    async def _record_deletions(
        self, repositories: Repositories, codes: list[Code], now: datetime
    ) -> None:
        for code in codes:
            await self.record_events.expiry(repositories, code, now)
        deleted = (code_event(EventType.CODE_DELETED, code.deactivated(), now) for code in codes)
        await self.record_events(repositories, *deleted)
