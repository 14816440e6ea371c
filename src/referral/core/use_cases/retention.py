"""Retention: pruning old rows, and expiring unconfirmed accounts and referrals."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NewType

from referral.core.entities.audit import SERVICE
from referral.core.entities.deliverability import VERIFICATION_TTL
from referral.core.entities.events import EVENT_RETENTION
from referral.core.entities.referrals import REFERRAL_COOLDOWN, REFERRAL_PENDING_PERIOD
from referral.core.entities.risk import NETWORK_RETENTION
from referral.core.entities.users import EmailConfirmationPolicy, User
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import ResolveReferral
from referral.core.policies.idempotency import IDEMPOTENCY_RETENTION
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock

AuditRetention = NewType("AuditRetention", timedelta)
"""How long the records of the audit log are stored."""

JOB_LOG_RETENTION = timedelta(days=7)
MAIL_QUOTA_RETENTION = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete rows past their expiry or retention period."""

    audit_retention: AuditRetention
    clock: Clock
    database: Database

    async def __call__(self) -> None:
        """Delete a bounded number of rows in each transaction, until none is left."""
        now = self.clock.now()
        async with self.database.begin() as repositories:
            await repositories.audit.prepare_storage(now)
        more = True
        while more:
            async with self.database.begin() as repositories:
                has_more = [
                    await repositories.sessions.prune(now),
                    await repositories.login_sessions.prune(now),
                    await repositories.authorization_codes.prune(now),
                    await repositories.one_time_tokens.prune(now),
                    await repositories.idempotency.prune(now - IDEMPOTENCY_RETENTION),
                    await repositories.mail_quota.prune(now - MAIL_QUOTA_RETENTION),
                    await repositories.verification_results.prune(now - VERIFICATION_TTL),
                    await repositories.referred_emails.prune(now - REFERRAL_COOLDOWN),
                    await repositories.networks.prune(now - NETWORK_RETENTION),
                    await repositories.deliveries.prune(now - EVENT_RETENTION),
                    await repositories.events.prune(now - EVENT_RETENTION),
                    await repositories.jobs.prune(now - JOB_LOG_RETENTION),
                    await repositories.audit.prune(now - self.audit_retention),
                ]
            more = any(has_more)


@dataclass(frozen=True, slots=True)
class ExpireUnconfirmed:
    """Erase accounts and reject referrals that were not confirmed in time.

    If confirmation is not required any more, the deadlines are cleared instead: an account must
    not be erased for a confirmation that nobody asked for.
    """

    invalidate_lookup: InvalidateLookup
    clock: Clock
    database: Database
    remove_account: RemoveAccount
    resolve_referral: ResolveReferral
    confirmation_policy: EmailConfirmationPolicy

    async def __call__(self) -> None:
        """Erase and reject, one account or referral in each transaction."""
        if not self.confirmation_policy.required:
            await self._clear_deadlines()
            return
        for step in (self._erase_account, self._reject_referral):
            while (owners := await step()) is not None:
                await self.invalidate_lookup(*owners)

    async def _clear_deadlines(self) -> None:
        more = True
        while more:
            async with self.database.begin() as repositories:
                more = await repositories.users.clear_confirmation_deadlines()

    async def _erase_account(self) -> list[User] | None:
        async with self.database.begin() as repositories:
            user = await repositories.users.lock_unconfirmed(self.clock.now())
            return None if user is None else await self.remove_account(repositories, user, SERVICE)

    async def _reject_referral(self) -> list[User] | None:
        async with self.database.begin() as repositories:
            overdue = await repositories.referrals.lock_overdue(
                self.clock.now() - REFERRAL_PENDING_PERIOD
            )
            if overdue is None:
                return None
            return await self.resolve_referral.reject(repositories, overdue)
