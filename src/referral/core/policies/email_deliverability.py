"""Whether mail to a new user arrives: asked at registration, and later where that was in vain."""

from dataclasses import dataclass, replace
from datetime import timedelta

from referral.core.entities.deliverability import VERIFICATION_TTL, Deliverability
from referral.core.entities.jobs import JobContext, VerifyEmailJob
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, Unavailable
from referral.core.policies.email_fingerprints import email_fingerprints
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
"""How long a registration waits, so that with all that surrounds it, it is 1.5 s at most."""


@dataclass(frozen=True, slots=True)
class VerifyEmailAtSignup:
    """Ask before anything is stored; whoever the operator vouches for is not asked about."""

    clock: Clock
    database: Database
    fingerprinter: Fingerprinter
    verifier: EmailVerifier | None

    async def __call__(self, user: User) -> User:
        """Return the user with what is known, or raise `EmailUndeliverable`."""
        if self.verifier is None or user.role is Role.ADMIN:
            return user
        result = await self._result(self.verifier, user)
        if result.blocks_registration:
            raise EmailUndeliverable(field="email")
        return replace(user, deliverability=result)

    def needs_recheck(self, user: User) -> bool:
        """Tell whether it has to be asked again later."""
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
    """Ask about someone who has an account; what is said is noted, and nothing else happens."""

    clock: Clock
    database: Database
    fingerprinter: Fingerprinter
    verifier: EmailVerifier | None

    async def __call__(self, job: VerifyEmailJob, context: JobContext) -> None:
        """Note the answer; raises `Later` to ask again."""
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
                await repositories.users.save(replace(user, deliverability=result))
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
    asking: VerifyEmailAtSignup | VerifyEmail,
    repositories: Repositories,
    user: User,
    result: Deliverability,
) -> None:
    """Remember what was said of a user's address."""
    newest = email_fingerprints(asking.fingerprinter, user)[0]
    await repositories.verification_results.save(newest, result, asking.clock.now())
