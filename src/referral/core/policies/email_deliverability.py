"""E-mail verification by a third party: at registration, and retried later by a job."""

from dataclasses import dataclass, replace
from datetime import timedelta

from referral.core.entities.deliverability import VERIFICATION_TTL, Deliverability
from referral.core.entities.jobs import JobContext, VerifyEmailJob
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, Unavailable
from referral.core.policies.email_fingerprints import email_fingerprints
from referral.core.policies.risk_assessment import ReassessAddress
from referral.core.policies.third_party_retries import (
    THIRD_PARTY_TIMEOUT,
    ThirdPartyFailure,
    schedule_retry,
)
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock
from referral.core.ports.third_parties import EmailVerifier

SIGNUP_VERIFICATION_TIMEOUT = timedelta(seconds=1.4)
"""The longest wait of a registration; it leaves 0.1 s for the rest of the 1.5 s budget."""


@dataclass(frozen=True, slots=True)
class VerifyEmailAtSignup:
    """Verify a new user's address before the account is stored; admins are not verified."""

    clock: Clock
    database: Database
    fingerprinter: Fingerprinter
    verifier: EmailVerifier | None

    async def __call__(self, user: User) -> User:
        """Return the user with the deliverability set, or raise `EmailUndeliverable`."""
        if self.verifier is None or user.role is Role.ADMIN:
            return user
        result = await self._result(self.verifier, user)
        if result.blocks_registration:
            raise EmailUndeliverable(field="email")
        return replace(user, deliverability=result)

    def needs_recheck(self, user: User) -> bool:
        """Return whether a job should verify the address again."""
        unknown = user.deliverability is Deliverability.UNKNOWN and user.role is not Role.ADMIN
        return self.verifier is not None and self.verifier.supports_recheck and unknown

    async def _result(self, verifier: EmailVerifier, user: User) -> Deliverability:
        async with self.database.read() as repositories:
            since = self.clock.now() - VERIFICATION_TTL
            known = await repositories.verification_results.find(
                email_fingerprints(self.fingerprinter, user), since
            )
        if known is not None:
            return known
        try:
            result = await verifier.verify(user.delivery_email, SIGNUP_VERIFICATION_TIMEOUT)
        except Unavailable:
            return Deliverability.UNKNOWN
        if verifier.supports_recheck and result is not Deliverability.UNKNOWN:
            async with self.database.begin() as repositories:
                await save_result(self, repositories, user, result)
        return result


@dataclass(frozen=True, slots=True)
class VerifyEmail:
    """Verify the address of an existing account; the result is stored.

    It may raise the risk of the user's referral, and has no other effect.
    """

    clock: Clock
    database: Database
    fingerprinter: Fingerprinter
    reassess_address: ReassessAddress
    verifier: EmailVerifier | None

    async def __call__(self, job: VerifyEmailJob, context: JobContext) -> None:
        """Store the result; raises `RescheduleJob` to retry later."""
        async with self.database.read() as repositories:
            user = await repositories.users.find(job.user_id)
        if user is None or self.verifier is None:
            return
        result = await self._verify(self.verifier, user, context)
        if result is Deliverability.UNKNOWN:
            return
        async with self.database.begin() as repositories:
            user = await repositories.users.lock(job.user_id)
            if user is not None:
                user = replace(user, deliverability=result)
                await repositories.users.save(user)
                await self.reassess_address(repositories, user)
                await save_result(self, repositories, user, result)

    async def _verify(
        self, verifier: EmailVerifier, user: User, context: JobContext
    ) -> Deliverability:
        result, failure = Deliverability.UNKNOWN, ThirdPartyFailure.INCONCLUSIVE
        try:
            result = await verifier.verify(user.delivery_email, THIRD_PARTY_TIMEOUT)
        except Unavailable:
            failure = ThirdPartyFailure.NO_RESPONSE
        if result is Deliverability.UNKNOWN:
            schedule_retry(context, failure)
        return result


async def save_result(
    use_case: VerifyEmailAtSignup | VerifyEmail,
    repositories: Repositories,
    user: User,
    result: Deliverability,
) -> None:
    """Store the result for a user's address, under the newest fingerprint."""
    newest = email_fingerprints(use_case.fingerprinter, user)[0]
    await repositories.verification_results.save(newest, result, use_case.clock.now())
