"""Asking a third party about addresses, at registration and later."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.deliverability import VERIFICATION_TTL, Deliverability
from referral.core.entities.jobs import JobContext, VerifyEmailJob
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, RescheduleJob
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.email_deliverability import (
    SIGNUP_VERIFICATION_TIMEOUT,
    VerifyEmail,
    VerifyEmailAtSignup,
)
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.policies.third_party_retries import MAX_THIRD_PARTY_RETRIES, ThirdPartyFailure
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.erasure import EraseAccount
from tests.core.service import PASSWORD, InMemoryService
from tests.support.fakes.third_parties import FakeEmailVerifier

UNKNOWN, VALID = Deliverability.UNKNOWN, Deliverability.VALID
ACCEPTED = [each for each in Deliverability if each is not UNKNOWN and not each.blocks_registration]


@dataclass
class VerifyingService:
    """A service whose new users are asked about."""

    world: InMemoryService = field(default_factory=InMemoryService)
    verifier: FakeEmailVerifier = field(default_factory=FakeEmailVerifier)

    def __post_init__(self) -> None:
        """Put the verifier into the use cases."""
        world = self.world
        asking = (world.clock, world.database, world.fingerprints, self.verifier)
        world.register = replace(world.register, verify_at_signup=VerifyEmailAtSignup(*asking))
        self.verify = VerifyEmail(*asking)

    async def find_user(self, user_id: UUID) -> User | None:
        """Return an account as it is stored."""
        async with self.world.database.read() as records:
            return await records.users.find(user_id)

    async def deliverability_of(self, user: User) -> Deliverability:
        """Return what the account says of its address."""
        stored = await self.find_user(user.id)
        assert stored is not None
        return stored.deliverability

    async def jobs(self) -> list[VerifyEmailJob]:
        """Return the questions that are queued."""
        async with self.world.database.read() as records:
            return [job for job in records.tables.jobs.values() if isinstance(job, VerifyEmailJob)]

    async def run_job(self, attempt: int = 1, **counters: int) -> None:
        """Do the one job there is."""
        [job] = await self.jobs()
        await self.verify(job, JobContext(UUID(int=7), attempt, counters))

    async def run_until_done(self) -> list[timedelta]:
        """Do the one job as often as it wants; return how long it waited each time."""
        counters: Counter[str] = Counter()
        waits: list[timedelta] = []
        while True:
            try:
                await self.run_job(len(waits), **counters)
            except RescheduleJob as later:
                counters[str(later.counter)] += 1
                waits.append(later.delay)
            else:
                return waits

    async def erase(self, user: User) -> None:
        """Erase an account."""
        world = self.world
        prove = Reauthenticate(world.database, world.password_hasher)
        remove = RemoveAccount(world.clock, world.fingerprints, world.settle_referral)
        erase = EraseAccount(world.register.invalidate_lookup, world.database, prove, remove)
        await erase(user.id, PASSWORD)


@pytest.fixture
def bureau() -> VerifyingService:
    """A service that nobody has used yet."""
    return VerifyingService()


@pytest.mark.parametrize("verdict", [Deliverability.INVALID, Deliverability.DISPOSABLE])
async def test_undeliverable_email_is_rejected(
    bureau: VerifyingService, verdict: Deliverability
) -> None:
    """No account is created, the error names the field, and the cached result serves the next
    registration.
    """
    bureau.verifier.result = verdict
    for _ in range(2):
        with pytest.raises(EmailUndeliverable) as refused:
            await bureau.world.create_account("ann@example.com")
        assert refused.value.field == "email"
    async with bureau.world.database.read() as records:
        assert await records.users.find_by_email("ann@example.com") is None
        assert not records.tables.jobs
    assert bureau.verifier.calls == [("ann@example.com", SIGNUP_VERIFICATION_TIMEOUT)]


@pytest.mark.parametrize("verdict", ACCEPTED)
async def test_conclusive_result_is_stored(
    bureau: VerifyingService, verdict: Deliverability
) -> None:
    """The account is created, and no job is queued."""
    bureau.verifier.result = verdict
    ann = await bureau.world.create_account("ann@example.com")
    assert await bureau.deliverability_of(ann) is verdict
    assert await bureau.jobs() == []


@pytest.mark.parametrize("verdict", [None, UNKNOWN])
async def test_inconclusive_result_queues_a_job(
    bureau: VerifyingService, verdict: Deliverability | None
) -> None:
    """The account is created with deliverability `unknown`; the job holds only the user's id."""
    bureau.verifier.result = verdict
    ann = await bureau.world.create_account("ann@example.com")
    assert await bureau.deliverability_of(ann) is UNKNOWN
    assert await bureau.jobs() == [VerifyEmailJob(ann.id)]


async def test_static_verifier_is_not_retried(bureau: VerifyingService) -> None:
    """The result of a static list does not change: it is neither retried nor cached."""
    bureau.verifier.result, bureau.verifier.supports_recheck = UNKNOWN, False
    await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = Deliverability.DISPOSABLE
    with pytest.raises(EmailUndeliverable):
        await bureau.world.create_account("bob@example.com")
    async with bureau.world.database.read() as records:
        assert not records.tables.verification_results
    assert await bureau.jobs() == []


async def test_verifier_is_called_outside_transactions(bureau: VerifyingService) -> None:
    """Other transactions can write while the third party is called."""
    others = iter(range(9))

    async def write() -> None:
        async with bureau.world.database.begin() as records:
            await records.jobs.enqueue(VerifyEmailJob(UUID(int=next(others))))

    bureau.verifier.during_call = write
    bureau.verifier.result = None
    ann = await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = VALID
    await bureau.verify(VerifyEmailJob(ann.id), JobContext(UUID(int=7), 1))
    assert next(others) == 2


async def test_admin_email_is_not_verified(bureau: VerifyingService) -> None:
    """The operator vouches for the address; neither a call nor a job is made."""
    bureau.verifier.result = Deliverability.INVALID
    admin = NewAccount("root@example.com", PASSWORD, role=Role.ADMIN)
    assert (await bureau.world.register(admin)).deliverability is UNKNOWN
    assert (bureau.verifier.calls, await bureau.jobs()) == ([], [])


async def test_verification_result_is_cached_for_thirty_days(bureau: VerifyingService) -> None:
    """Also after a key rotation, while the old key is configured; then the verifier is called
    again.
    """
    bureau.verifier.result = Deliverability.DISPOSABLE
    for step, asked in ((timedelta(), 1), (VERIFICATION_TTL, 1), (timedelta(seconds=1), 2)):
        bureau.world.clock.advance(seconds=step.total_seconds())
        with pytest.raises(EmailUndeliverable):
            await bureau.world.create_account("ann@example.com")
        assert len(bureau.verifier.calls) == asked
        bureau.world.fingerprints.keys.insert(0, f"key {asked}".encode())


async def test_job_stores_its_result(bureau: VerifyingService) -> None:
    """A late rejection changes the deliverability of the account, and nothing else."""
    bureau.verifier.result = None
    ann = await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = Deliverability.INVALID
    await bureau.run_job()
    assert await bureau.find_user(ann.id) == replace(ann, deliverability=Deliverability.INVALID)


async def test_job_backs_off(bureau: VerifyingService) -> None:
    """The delays grow from seconds to hours, and then the job stops."""
    bureau.verifier.result = None
    await bureau.world.create_account("ann@example.com")
    waits = await bureau.run_until_done()
    assert waits == sorted(waits)
    assert timedelta(seconds=2) < waits[0] < timedelta(seconds=6)
    assert timedelta(hours=3) <= waits[-1] <= timedelta(hours=6)
    assert timedelta(days=1) < sum(waits, timedelta()) < timedelta(days=4)
    assert len(bureau.verifier.calls) == 2 + len(waits)


async def test_attempts_without_a_call_do_not_count(bureau: VerifyingService) -> None:
    """A stopped worker or an unavailable database uses up no retries."""
    bureau.verifier.result = None
    await bureau.world.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.run_job(attempt=1000, failures=50)
    assert later.value.delay < timedelta(seconds=6)


async def test_missing_responses_do_not_use_up_inconclusive_retries(
    bureau: VerifyingService,
) -> None:
    """After an outage, the first inconclusive result is retried, and the delay keeps growing."""
    bureau.verifier.result = UNKNOWN
    await bureau.world.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.run_job(unanswered=MAX_THIRD_PARTY_RETRIES[ThirdPartyFailure.NO_RESPONSE])
    assert later.value.counter == ThirdPartyFailure.INCONCLUSIVE
    assert later.value.delay >= timedelta(hours=3)


async def test_inconclusive_results_are_retried_a_few_times(bureau: VerifyingService) -> None:
    """Each call costs money; then the deliverability stays unknown."""
    bureau.verifier.result = UNKNOWN
    ann = await bureau.world.create_account("ann@example.com")
    waits = await bureau.run_until_done()
    assert 0 < len(waits) < 10
    assert await bureau.deliverability_of(ann) is UNKNOWN


async def test_erased_user_is_not_verified(bureau: VerifyingService) -> None:
    """The job ends, and a late result is not stored."""
    bureau.verifier.result = None
    ann = await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = VALID
    bureau.verifier.during_call = lambda: bureau.erase(ann)
    await bureau.run_job()
    await bureau.run_job()
    assert len(bureau.verifier.calls) == 2
    async with bureau.world.database.read() as records:
        assert not records.tables.verification_results


async def test_erasure_deletes_the_verification_result(bureau: VerifyingService) -> None:
    """Under every configured key."""
    ann = await bureau.world.create_account("ann@example.com")
    bureau.world.fingerprints.keys.insert(0, b"a newer key")
    async with bureau.world.database.read() as records:
        assert records.tables.verification_results
        await bureau.erase(ann)
        assert not records.tables.verification_results
