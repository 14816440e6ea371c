"""Deleting what is of no more use, and ending what was not confirmed in time."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.entities.deliverability import VERIFICATION_TTL
from referral.core.entities.referrals import PENDING_PERIOD, REFERRED_AGAIN_AFTER
from referral.core.entities.users import User, Verification
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import SettleReferral
from referral.core.policies.idempotency import RETENTION
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock

LOG_KEPT = timedelta(days=7)
MAILS_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete ended sessions, dead links, old answers and verdicts, marks of mails, and the log of
    jobs.
    """

    clock: Clock
    database: Database

    async def __call__(self) -> None:
        """Prune, a bounded number of rows in each transaction."""
        now = self.clock.now()
        more = True
        while more:
            async with self.database.begin() as records:
                left = [
                    await records.sessions.prune(now),
                    await records.one_time_tokens.prune(now),
                    await records.idempotency.prune(now - RETENTION),
                    await records.mails.prune(now - MAILS_KEPT),
                    await records.verdicts.prune(now - VERIFICATION_TTL),
                    await records.referred_emails.prune(now - REFERRED_AGAIN_AFTER),
                    await records.jobs.prune(now - LOG_KEPT),
                ]
            more = any(left)


@dataclass(frozen=True, slots=True)
class ExpireUnconfirmed:
    """Erase accounts and reject referrals that were not confirmed in time.

    Where confirmation is not required any more, no account is erased for the lack of it: whoever
    registered meanwhile could not know.
    """

    clear: InvalidateLookup
    clock: Clock
    database: Database
    remove: RemoveAccount
    settle: SettleReferral
    verification: Verification

    async def __call__(self) -> None:
        """Erase and reject, one account or referral in each transaction."""
        if not self.verification.required:
            await self._waive()
            return
        for step in (self._erase_account, self._reject_referral):
            while (owners := await step()) is not None:
                await self.clear(*owners)

    async def _waive(self) -> None:
        more = True
        while more:
            async with self.database.begin() as records:
                more = await records.users.waive_confirmation()

    async def _erase_account(self) -> list[User] | None:
        async with self.database.begin() as records:
            user = await records.users.lock_unconfirmed(self.clock.now())
            return None if user is None else await self.remove(records, user)

    async def _reject_referral(self) -> list[User] | None:
        async with self.database.begin() as records:
            overdue = await records.referrals.lock_overdue(self.clock.now() - PENDING_PERIOD)
            if overdue is None:
                return None
            owner = await self.settle.reject(records, overdue)
        return [] if owner is None else [owner]
