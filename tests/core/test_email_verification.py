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
async def test_a_definite_no_refuses(bureau: VerifyingService, verdict: Deliverability) -> None:
    """No account is made, and the field is named; the next one with the address is not asked."""
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
async def test_any_other_answer_is_noted(bureau: VerifyingService, verdict: Deliverability) -> None:
    """The account is made, and nobody is asked again."""
    bureau.verifier.result = verdict
    ann = await bureau.world.create_account("ann@example.com")
    assert await bureau.deliverability_of(ann) is verdict
    assert await bureau.jobs() == []


@pytest.mark.parametrize("verdict", [None, UNKNOWN])
async def test_no_answer_makes_the_account_and_a_job(
    bureau: VerifyingService, verdict: Deliverability | None
) -> None:
    """The state is unknown, and a job holds the user's id and nothing else."""
    bureau.verifier.result = verdict
    ann = await bureau.world.create_account("ann@example.com")
    assert await bureau.deliverability_of(ann) is UNKNOWN
    assert await bureau.jobs() == [VerifyEmailJob(ann.id)]


async def test_what_cannot_learn_is_not_asked_again(bureau: VerifyingService) -> None:
    """A list says the same tomorrow; its answers need no cache."""
    bureau.verifier.result, bureau.verifier.supports_recheck = UNKNOWN, False
    await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = Deliverability.DISPOSABLE
    with pytest.raises(EmailUndeliverable):
        await bureau.world.create_account("bob@example.com")
    async with bureau.world.database.read() as records:
        assert not records.tables.verification_results
    assert await bureau.jobs() == []


async def test_nobody_is_asked_within_a_transaction(bureau: VerifyingService) -> None:
    """While the third party thinks, others write."""
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


async def test_an_admin_is_vouched_for(bureau: VerifyingService) -> None:
    """The operator knows the address; nobody is asked, now or later."""
    bureau.verifier.result = Deliverability.INVALID
    admin = NewAccount("root@example.com", PASSWORD, role=Role.ADMIN)
    assert (await bureau.world.register(admin)).deliverability is UNKNOWN
    assert (bureau.verifier.calls, await bureau.jobs()) == ([], [])


async def test_an_answer_counts_for_thirty_days(bureau: VerifyingService) -> None:
    """Under another key as well, as long as the old one is known; then it is asked anew."""
    bureau.verifier.result = Deliverability.DISPOSABLE
    for step, asked in ((timedelta(), 1), (VERIFICATION_TTL, 1), (timedelta(seconds=1), 2)):
        bureau.world.clock.advance(seconds=step.total_seconds())
        with pytest.raises(EmailUndeliverable):
            await bureau.world.create_account("ann@example.com")
        assert len(bureau.verifier.calls) == asked
        bureau.world.fingerprints.keys.insert(0, f"key {asked}".encode())


async def test_the_job_notes_what_it_learns(bureau: VerifyingService) -> None:
    """A late refusal changes the state of the account, and nothing else about it."""
    bureau.verifier.result = None
    ann = await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = Deliverability.INVALID
    await bureau.run_job()
    assert await bureau.find_user(ann.id) == replace(ann, deliverability=Deliverability.INVALID)


async def test_the_job_waits_longer_each_time(bureau: VerifyingService) -> None:
    """From seconds up to hours, and then it rests."""
    bureau.verifier.result = None
    await bureau.world.create_account("ann@example.com")
    waits = await bureau.run_until_done()
    assert waits == sorted(waits)
    assert timedelta(seconds=2) < waits[0] < timedelta(seconds=6)
    assert timedelta(hours=3) <= waits[-1] <= timedelta(hours=6)
    assert timedelta(days=1) < sum(waits, timedelta()) < timedelta(days=4)
    assert len(bureau.verifier.calls) == 2 + len(waits)


async def test_attempts_that_asked_nobody_do_not_count(bureau: VerifyingService) -> None:
    """A worker that was stopped, or a database that was away, ends no question."""
    bureau.verifier.result = None
    await bureau.world.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.run_job(attempt=1000, failures=50)
    assert later.value.delay < timedelta(seconds=6)


async def test_answers_that_failed_to_come_leave_room_for_those_that_say_nothing(
    bureau: VerifyingService,
) -> None:
    """After an outage the first word that decides nothing is not the last; waits go on growing."""
    bureau.verifier.result = UNKNOWN
    await bureau.world.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.run_job(unanswered=MAX_THIRD_PARTY_RETRIES[ThirdPartyFailure.NO_RESPONSE])
    assert later.value.counter == ThirdPartyFailure.INCONCLUSIVE
    assert later.value.delay >= timedelta(hours=3)


async def test_answers_that_say_nothing_are_not_paid_for_for_ever(bureau: VerifyingService) -> None:
    """After a few of them the state stays unknown."""
    bureau.verifier.result = UNKNOWN
    ann = await bureau.world.create_account("ann@example.com")
    waits = await bureau.run_until_done()
    assert 0 < len(waits) < 10
    assert await bureau.deliverability_of(ann) is UNKNOWN


async def test_whoever_is_erased_is_not_asked_about(bureau: VerifyingService) -> None:
    """The job ends; an answer that comes too late is not kept."""
    bureau.verifier.result = None
    ann = await bureau.world.create_account("ann@example.com")
    bureau.verifier.result = VALID
    bureau.verifier.during_call = lambda: bureau.erase(ann)
    await bureau.run_job()
    await bureau.run_job()
    assert len(bureau.verifier.calls) == 2
    async with bureau.world.database.read() as records:
        assert not records.tables.verification_results


async def test_erasure_takes_the_answer_along(bureau: VerifyingService) -> None:
    """Under every key that it may have been kept by."""
    ann = await bureau.world.create_account("ann@example.com")
    bureau.world.fingerprints.keys.insert(0, b"a newer key")
    async with bureau.world.database.read() as records:
        assert records.tables.verification_results
        await bureau.erase(ann)
        assert not records.tables.verification_results
