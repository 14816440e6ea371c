"""Removing an account, whoever decided it: its owner, the owner of the mailbox, or a deadline."""

from dataclasses import dataclass

from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import User
from referral.core.policies.attribution import SettleReferral
from referral.core.policies.email_fingerprints import fingerprints_of
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprints
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class RemoveAccount:
    """Take away all that is personal. Counts of referrals stay, and so do taken texts of codes."""

    clock: Clock
    fingerprints: Fingerprints
    settle: SettleReferral

    async def __call__(self, records: Repositories, user: User) -> list[User]:
        """Remove a locked account; return whose look-ups to invalidate after the commit."""
        now, fingerprints = self.clock.now(), fingerprints_of(self.fingerprints, user)
        pending = await records.referrals.lock_pending(user.id)
        # In one order, or two users who are each other's referrer would wait for one another.
        await records.codes.lock_all(user.id, pending.code_id if pending else None)
        referrer = await self.settle.reject(records, pending) if pending else None
        await self._remember(records, user, fingerprints[0])
        await records.codes.delete_all(user.id, now)
        await records.sessions.end_all(user.id)
        await records.idempotency.forget(user.id)
        await records.one_time_tokens.forget(user.id)
        await records.profiles.delete(user.id)
        await records.verdicts.forget(fingerprints)
        await records.users.erase(user.id, now)
        return [user] if referrer is None else [user, referrer]

    async def _remember(self, records: Repositories, user: User, fingerprint: bytes) -> None:
        """Store that the address was referred, if its referral was confirmed."""
        referral = await records.referrals.of(user.id)
        if referral is not None and referral.status is ReferralStatus.CONFIRMED:
            await records.referred_emails.add(fingerprint, referral.joined_at)
