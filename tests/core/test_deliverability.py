"""Asking a third party about addresses, at registration and later."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.deliverability import VERIFICATION_TTL, Deliverability
from referral.core.entities.jobs import JobContext, Verifying
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, RescheduleJob
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.email_deliverability import AT_REGISTRATION, Verify, VerifyEmailAtSignup
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.policies.third_party_retries import MAX_RETRIES, Fault
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.erasure import EraseAccount
from tests.core.world import PASSWORD, World
from tests.support.fake_knowledge import FakeVerifier

UNKNOWN, VALID = Deliverability.UNKNOWN, Deliverability.VALID
SETTLED = [each for each in Deliverability if each is not UNKNOWN and not each.refuses]


@dataclass
class Bureau:
    """A service whose new users are asked about."""

    world: World = field(default_factory=World)
    verifier: FakeVerifier = field(default_factory=FakeVerifier)

    def __post_init__(self) -> None:
        """Put the verifier into the use cases."""
        world = self.world
        asking = (world.clock, world.database, world.fingerprints, self.verifier)
        world.register = replace(world.register, screen=VerifyEmailAtSignup(*asking))
        self.verify = Verify(*asking)

    async def stored(self, user_id: UUID) -> User | None:
        """Return an account as it is stored."""
        async with self.world.database.read() as records:
            return await records.users.get(user_id)

    async def verdict_on(self, user: User) -> Deliverability:
        """Return what the account says of its address."""
        stored = await self.stored(user.id)
        assert stored is not None
        return stored.deliverability

    async def jobs(self) -> list[Verifying]:
        """Return the questions that are queued."""
        async with self.world.database.read() as records:
            return [job for job in records.tables.jobs.values() if isinstance(job, Verifying)]

    async def work(self, attempt: int = 1, **counters: int) -> None:
        """Do the one job there is."""
        [job] = await self.jobs()
        await self.verify(job, JobContext(UUID(int=7), attempt, counters))

    async def ask_until_at_rest(self) -> list[timedelta]:
        """Do the one job as often as it wants; return how long it waited each time."""
        counters: Counter[str] = Counter()
        waits: list[timedelta] = []
        while True:
            try:
                await self.work(len(waits), **counters)
            except RescheduleJob as later:
                counters[str(later.counter)] += 1
                waits.append(later.wait)
            else:
                return waits

    async def erase(self, user: User) -> None:
        """Erase an account."""
        world = self.world
        prove = Reauthenticate(world.database, world.passwords)
        remove = RemoveAccount(world.clock, world.fingerprints, world.settle)
        erase = EraseAccount(world.register.clear, world.database, prove, remove)
        await erase(user.id, PASSWORD)


@pytest.fixture
def bureau() -> Bureau:
    """A service that nobody has used yet."""
    return Bureau()


@pytest.mark.parametrize("verdict", [Deliverability.INVALID, Deliverability.DISPOSABLE])
async def test_a_definite_no_refuses(bureau: Bureau, verdict: Deliverability) -> None:
    """No account is made, and the field is named; the next one with the address is not asked."""
    bureau.verifier.verdict = verdict
    for _ in range(2):
        with pytest.raises(EmailUndeliverable) as refused:
            await bureau.world.join("ann@example.com")
        assert refused.value.field == "email"
    async with bureau.world.database.read() as records:
        assert await records.users.by_email("ann@example.com") is None
        assert not records.tables.jobs
    assert bureau.verifier.asked == [("ann@example.com", AT_REGISTRATION)]


@pytest.mark.parametrize("verdict", SETTLED)
async def test_any_other_answer_is_noted(bureau: Bureau, verdict: Deliverability) -> None:
    """The account is made, and nobody is asked again."""
    bureau.verifier.verdict = verdict
    ann = await bureau.world.join("ann@example.com")
    assert await bureau.verdict_on(ann) is verdict
    assert await bureau.jobs() == []


@pytest.mark.parametrize("verdict", [None, UNKNOWN])
async def test_no_answer_makes_the_account_and_a_job(
    bureau: Bureau, verdict: Deliverability | None
) -> None:
    """The state is unknown, and a job holds the user's id and nothing else."""
    bureau.verifier.verdict = verdict
    ann = await bureau.world.join("ann@example.com")
    assert await bureau.verdict_on(ann) is UNKNOWN
    assert await bureau.jobs() == [Verifying(ann.id)]


async def test_what_cannot_learn_is_not_asked_again(bureau: Bureau) -> None:
    """A list says the same tomorrow; its answers need no cache."""
    bureau.verifier.verdict, bureau.verifier.may_learn = UNKNOWN, False
    await bureau.world.join("ann@example.com")
    bureau.verifier.verdict = Deliverability.DISPOSABLE
    with pytest.raises(EmailUndeliverable):
        await bureau.world.join("bob@example.com")
    async with bureau.world.database.read() as records:
        assert not records.tables.verdicts
    assert await bureau.jobs() == []


async def test_nobody_is_asked_within_a_transaction(bureau: Bureau) -> None:
    """While the third party thinks, others write."""
    others = iter(range(9))

    async def write() -> None:
        async with bureau.world.database.begin() as records:
            await records.jobs.enqueue(Verifying(UUID(int=next(others))))

    bureau.verifier.meanwhile = write
    bureau.verifier.verdict = None
    ann = await bureau.world.join("ann@example.com")
    bureau.verifier.verdict = VALID
    await bureau.verify(Verifying(ann.id), JobContext(UUID(int=7), 1))
    assert next(others) == 2


async def test_an_admin_is_vouched_for(bureau: Bureau) -> None:
    """The operator knows the address; nobody is asked, now or later."""
    bureau.verifier.verdict = Deliverability.INVALID
    admin = NewAccount("root@example.com", PASSWORD, role=Role.ADMIN)
    assert (await bureau.world.register(admin)).deliverability is UNKNOWN
    assert (bureau.verifier.asked, await bureau.jobs()) == ([], [])


async def test_an_answer_counts_for_thirty_days(bureau: Bureau) -> None:
    """Under another key as well, as long as the old one is known; then it is asked anew."""
    bureau.verifier.verdict = Deliverability.DISPOSABLE
    for step, asked in ((timedelta(), 1), (VERIFICATION_TTL, 1), (timedelta(seconds=1), 2)):
        bureau.world.clock.advance(seconds=step.total_seconds())
        with pytest.raises(EmailUndeliverable):
            await bureau.world.join("ann@example.com")
        assert len(bureau.verifier.asked) == asked
        bureau.world.fingerprints.keys.insert(0, f"key {asked}".encode())


async def test_the_job_notes_what_it_learns(bureau: Bureau) -> None:
    """A late refusal changes the state of the account, and nothing else about it."""
    bureau.verifier.verdict = None
    ann = await bureau.world.join("ann@example.com")
    bureau.verifier.verdict = Deliverability.INVALID
    await bureau.work()
    assert await bureau.stored(ann.id) == replace(ann, deliverability=Deliverability.INVALID)


async def test_the_job_waits_longer_each_time(bureau: Bureau) -> None:
    """From seconds up to hours, and then it rests."""
    bureau.verifier.verdict = None
    await bureau.world.join("ann@example.com")
    waits = await bureau.ask_until_at_rest()
    assert waits == sorted(waits)
    assert timedelta(seconds=2) < waits[0] < timedelta(seconds=6)
    assert timedelta(hours=3) <= waits[-1] <= timedelta(hours=6)
    assert timedelta(days=1) < sum(waits, timedelta()) < timedelta(days=4)
    assert len(bureau.verifier.asked) == 2 + len(waits)


async def test_attempts_that_asked_nobody_do_not_count(bureau: Bureau) -> None:
    """A worker that was stopped, or a database that was away, ends no question."""
    bureau.verifier.verdict = None
    await bureau.world.join("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.work(attempt=1000, failures=50)
    assert later.value.wait < timedelta(seconds=6)


async def test_answers_that_failed_to_come_leave_room_for_those_that_say_nothing(
    bureau: Bureau,
) -> None:
    """After an outage the first word that decides nothing is not the last; waits go on growing."""
    bureau.verifier.verdict = UNKNOWN
    await bureau.world.join("ann@example.com")
    with pytest.raises(RescheduleJob) as later:
        await bureau.work(unanswered=MAX_RETRIES[Fault.UNANSWERED])
    assert later.value.counter == Fault.UNDECIDED
    assert later.value.wait >= timedelta(hours=3)


async def test_answers_that_say_nothing_are_not_paid_for_for_ever(bureau: Bureau) -> None:
    """After a few of them the state stays unknown."""
    bureau.verifier.verdict = UNKNOWN
    ann = await bureau.world.join("ann@example.com")
    waits = await bureau.ask_until_at_rest()
    assert 0 < len(waits) < 10
    assert await bureau.verdict_on(ann) is UNKNOWN


async def test_whoever_is_erased_is_not_asked_about(bureau: Bureau) -> None:
    """The job ends; an answer that comes too late is not kept."""
    bureau.verifier.verdict = None
    ann = await bureau.world.join("ann@example.com")
    bureau.verifier.verdict = VALID
    bureau.verifier.meanwhile = lambda: bureau.erase(ann)
    await bureau.work()
    await bureau.work()
    assert len(bureau.verifier.asked) == 2
    async with bureau.world.database.read() as records:
        assert not records.tables.verdicts


async def test_erasure_takes_the_answer_along(bureau: Bureau) -> None:
    """Under every key that it may have been kept by."""
    ann = await bureau.world.join("ann@example.com")
    bureau.world.fingerprints.keys.insert(0, b"a newer key")
    async with bureau.world.database.read() as records:
        assert records.tables.verdicts
        await bureau.erase(ann)
        assert not records.tables.verdicts
