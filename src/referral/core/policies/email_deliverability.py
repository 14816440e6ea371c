"""Whether mail to a new user arrives: asked at registration, and later where that was in vain."""

from dataclasses import dataclass, replace
from datetime import timedelta

from referral.core.entities.deliverability import VERIFICATION_TTL, Deliverability
from referral.core.entities.jobs import JobContext, Verifying
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, Unavailable
from referral.core.policies.email_fingerprints import fingerprints_of
from referral.core.policies.third_party_retries import RESPONSE_TIMEOUT, Fault, ask_again
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.security import Fingerprints
from referral.core.ports.system import Clock
from referral.core.ports.third_parties import EmailVerifier

AT_REGISTRATION = timedelta(seconds=1.4)
"""How long a registration waits, so that with all that surrounds it, it is 1.5 s at most."""


@dataclass(frozen=True, slots=True)
class VerifyEmailAtSignup:
    """Ask before anything is stored; whoever the operator vouches for is not asked about."""

    clock: Clock
    database: Database
    fingerprints: Fingerprints
    verifier: EmailVerifier | None

    async def __call__(self, user: User) -> User:
        """Return the user with what is known, or raise `EmailUndeliverable`."""
        if self.verifier is None or user.role is Role.ADMIN:
            return user
        verdict = await self._verdict(self.verifier, user)
        if verdict.refuses:
            raise EmailUndeliverable(field="email")
        return replace(user, deliverability=verdict)

    def is_open(self, user: User) -> bool:
        """Tell whether it has to be asked again later."""
        unknown = user.deliverability is Deliverability.UNKNOWN and user.role is not Role.ADMIN
        return self.verifier is not None and self.verifier.may_learn and unknown

    async def _verdict(self, verifier: EmailVerifier, user: User) -> Deliverability:
        async with self.database.read() as records:
            since = self.clock.now() - VERIFICATION_TTL
            known = await records.verdicts.find(fingerprints_of(self.fingerprints, user), since)
        if known is not None:
            return known
        try:
            verdict = await verifier.verify(user.mailbox, AT_REGISTRATION)
        except Unavailable:
            return Deliverability.UNKNOWN
        if verifier.may_learn and verdict is not Deliverability.UNKNOWN:
            async with self.database.begin() as records:
                await keep_verdict(self, records, user, verdict)
        return verdict


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask about someone who has an account; what is said is noted, and nothing else happens."""

    clock: Clock
    database: Database
    fingerprints: Fingerprints
    verifier: EmailVerifier | None

    async def __call__(self, job: Verifying, run: JobContext) -> None:
        """Note the answer; raises `Later` to ask again."""
        async with self.database.read() as records:
            user = await records.users.get(job.user_id)
        if user is None or self.verifier is None:
            return
        verdict = await self._ask(self.verifier, user, run)
        if verdict is Deliverability.UNKNOWN:
            return
        async with self.database.begin() as records:
            user = await records.users.lock(job.user_id)
            if user is not None:
                await records.users.save(replace(user, deliverability=verdict))
                await keep_verdict(self, records, user, verdict)

    async def _ask(self, verifier: EmailVerifier, user: User, run: JobContext) -> Deliverability:
        verdict, fault = Deliverability.UNKNOWN, Fault.UNDECIDED
        try:
            verdict = await verifier.verify(user.mailbox, RESPONSE_TIMEOUT)
        except Unavailable:
            fault = Fault.UNANSWERED
        if verdict is Deliverability.UNKNOWN:
            ask_again(run, fault)
        return verdict


async def keep_verdict(
    asking: VerifyEmailAtSignup | Verify, records: Repositories, user: User, verdict: Deliverability
) -> None:
    """Remember what was said of a user's address."""
    newest = fingerprints_of(asking.fingerprints, user)[0]
    await records.verdicts.keep(newest, verdict, asking.clock.now())
