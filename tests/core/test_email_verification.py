"""Verification of e-mail addresses by a third party, at registration and by jobs."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.jobs import JobContext, VerifyEmailJob
from referral.core.entities.users import Role, User
from referral.core.errors import EmailUndeliverable, RescheduleJob
from referral.core.ports.third_parties import EmailVerifier
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.job_dispatch import DispatchJob
from tests.core.service import PASSWORD, InMemoryService
from tests.support.fakes.third_parties import FakeEmailVerifier

UNKNOWN, VALID = Deliverability.UNKNOWN, Deliverability.VALID
ACCEPTED = [each for each in Deliverability if each is not UNKNOWN and not each.blocks_registration]


class VerifyingService(InMemoryService):
    """A service that verifies the e-mail addresses of new users."""

    def __init__(self) -> None:
        super().__init__()
        self.verifier = FakeEmailVerifier()
        self.override(EmailVerifier | None, self.verifier)
        self.run = self.get(DispatchJob)

    async def find_user(self, user_id: UUID) -> User | None:
        """Return the stored account."""
        async with self.database.read() as repositories:
            return await repositories.users.find(user_id)

    async def deliverability_of(self, user: User) -> Deliverability:
        """Return the stored deliverability of a user's e-mail address."""
        stored = await self.find_user(user.id)
        assert stored is not None
        return stored.deliverability

    async def verification_jobs(self) -> list[VerifyEmailJob]:
        """Return the queued verification jobs."""
        async with self.database.read() as repositories:
            jobs = repositories.tables.jobs.values()
            return [job for job in jobs if isinstance(job, VerifyEmailJob)]

    async def run_job(self, attempt: int = 1, **counters: int) -> None:
        """Run the only queued job."""
        [job] = await self.verification_jobs()
        await self.run(job, JobContext(UUID(int=7), attempt, counters))

    async def run_until_done(self) -> list[timedelta]:
        """Run the only queued job until it is done, and return the delays before each retry."""
        counters: Counter[str] = Counter()
        delays: list[timedelta] = []
        while True:
            try:
                await self.run_job(len(delays), **counters)
            except RescheduleJob as rescheduled:
                counters[str(rescheduled.counter)] += 1
                delays.append(rescheduled.delay)
            else:
                return delays


@pytest.fixture
def service() -> VerifyingService:
    """A new service."""
    return VerifyingService()


@pytest.mark.parametrize("result", [Deliverability.INVALID, Deliverability.DISPOSABLE])
async def test_undeliverable_email_is_rejected(
    service: VerifyingService, result: Deliverability
) -> None:
    """The error names the field, and the cached result serves the next registration."""
    service.verifier.result = result
    for _ in range(2):
        with pytest.raises(EmailUndeliverable) as raised:
            await service.create_account("ann@example.com")
        assert raised.value.field == "email"
    async with service.database.read() as repositories:
        assert await repositories.users.find_by_email("ann@example.com") is None
        assert not repositories.tables.jobs
    assert service.verifier.calls == [("ann@example.com", timedelta(seconds=1.4))]


@pytest.mark.parametrize("result", ACCEPTED)
async def test_conclusive_result_is_stored(
    service: VerifyingService, result: Deliverability
) -> None:
    """The account is created, and no job is queued."""
    service.verifier.result = result
    ann = await service.create_account("ann@example.com")
    assert await service.deliverability_of(ann) is result
    assert await service.verification_jobs() == []


@pytest.mark.parametrize("result", [None, UNKNOWN])
async def test_inconclusive_result_queues_a_job(
    service: VerifyingService, result: Deliverability | None
) -> None:
    """The account is created with deliverability `unknown`; the job holds only the user's id."""
    service.verifier.result = result
    ann = await service.create_account("ann@example.com")
    assert await service.deliverability_of(ann) is UNKNOWN
    assert await service.verification_jobs() == [VerifyEmailJob(ann.id)]


async def test_static_verifier_is_not_retried(service: VerifyingService) -> None:
    """The result of a static list does not change: it is neither retried nor cached."""
    service.verifier.result, service.verifier.supports_recheck = UNKNOWN, False
    await service.create_account("ann@example.com")
    service.verifier.result = Deliverability.DISPOSABLE
    with pytest.raises(EmailUndeliverable):
        await service.create_account("bob@example.com")
    async with service.database.read() as repositories:
        assert not repositories.tables.verification_results
    assert await service.verification_jobs() == []


async def test_verifier_is_called_outside_transactions(service: VerifyingService) -> None:
    """Other transactions can write while the third party is called."""
    numbers = iter(range(9))

    async def write() -> None:
        async with service.database.begin() as repositories:
            await repositories.jobs.enqueue(VerifyEmailJob(UUID(int=next(numbers))))

    service.verifier.during_call = write
    service.verifier.result = None
    ann = await service.create_account("ann@example.com")
    service.verifier.result = VALID
    await service.run(VerifyEmailJob(ann.id), JobContext(UUID(int=7), 1))
    assert next(numbers) == 2


async def test_admin_email_is_not_verified(service: VerifyingService) -> None:
    """The operator vouches for the address; neither a call nor a job is made."""
    service.verifier.result = Deliverability.INVALID
    admin = NewAccount("root@example.com", PASSWORD, role=Role.ADMIN)
    assert (await service.register(admin)).deliverability is UNKNOWN
    assert (service.verifier.calls, await service.verification_jobs()) == ([], [])


async def test_verification_result_is_cached_for_thirty_days(service: VerifyingService) -> None:
    """Also after a key rotation, while the old key is configured."""
    service.verifier.result = Deliverability.DISPOSABLE
    for step, calls in ((timedelta(), 1), (timedelta(days=30), 1), (timedelta(seconds=1), 2)):
        service.clock.advance(seconds=step.total_seconds())
        with pytest.raises(EmailUndeliverable):
            await service.create_account("ann@example.com")
        assert len(service.verifier.calls) == calls
        service.fingerprints.keys.insert(0, f"key {calls}".encode())


async def test_job_stores_its_result(service: VerifyingService) -> None:
    """A late rejection changes the deliverability of the account, and nothing else.

    It is cached, as that of a registration, and the job waits longer for it.
    """
    service.verifier.result = None
    ann = await service.create_account("Ann@Example.com")
    service.verifier.result = Deliverability.INVALID
    await service.run_job()
    assert await service.find_user(ann.id) == replace(ann, deliverability=Deliverability.INVALID)
    assert service.verifier.calls == [
        ("Ann@example.com", timedelta(seconds=1.4)),
        ("Ann@example.com", timedelta(seconds=10)),
    ]
    async with service.database.read() as repositories:
        results = list(repositories.tables.verification_results.values())
    assert results == [(service.clock.now(), Deliverability.INVALID)]


async def test_job_backs_off(service: VerifyingService) -> None:
    """The delays grow from seconds to hours, and after 18 retries the job stops."""
    service.verifier.result = None
    await service.create_account("ann@example.com")
    delays = await service.run_until_done()
    assert len(delays) == 18
    assert delays == sorted(delays)
    assert timedelta(seconds=2) < delays[0] < timedelta(seconds=6)
    assert timedelta(hours=3) <= delays[-1] <= timedelta(hours=6)
    assert timedelta(days=1) < sum(delays, timedelta()) < timedelta(days=4)
    assert len(service.verifier.calls) == 2 + len(delays)


async def test_attempts_without_a_call_do_not_count(service: VerifyingService) -> None:
    """A stopped worker or an unavailable database uses up no retries."""
    service.verifier.result = None
    await service.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as rescheduled:
        await service.run_job(attempt=1000, failures=50)
    assert rescheduled.value.delay < timedelta(seconds=6)


async def test_missing_responses_do_not_use_up_inconclusive_retries(
    service: VerifyingService,
) -> None:
    """After an outage, the first inconclusive result is retried, and the delay keeps growing."""
    service.verifier.result = UNKNOWN
    await service.create_account("ann@example.com")
    with pytest.raises(RescheduleJob) as rescheduled:
        await service.run_job(unanswered=18)
    assert rescheduled.value.counter == "undecided"
    assert rescheduled.value.delay >= timedelta(hours=3)


async def test_inconclusive_results_are_retried_a_few_times(service: VerifyingService) -> None:
    """Seven times, as each call costs money; then the deliverability stays unknown."""
    service.verifier.result = UNKNOWN
    ann = await service.create_account("ann@example.com")
    delays = await service.run_until_done()
    assert len(delays) == 7
    assert await service.deliverability_of(ann) is UNKNOWN


async def test_erased_user_is_not_verified(service: VerifyingService) -> None:
    """The job ends, and a late result is not stored."""
    service.verifier.result = None
    ann = await service.create_account("ann@example.com")
    service.verifier.result = VALID
    service.verifier.during_call = lambda: service.erase_account(ann.id, PASSWORD)
    await service.run_job()
    await service.run_job()
    assert len(service.verifier.calls) == 2
    async with service.database.read() as repositories:
        assert not repositories.tables.verification_results


async def test_erasure_deletes_the_verification_result(service: VerifyingService) -> None:
    """Under every configured key."""
    ann = await service.create_account("ann@example.com")
    service.fingerprints.keys.insert(0, b"a newer key")
    async with service.database.read() as repositories:
        assert repositories.tables.verification_results
        await service.erase_account(ann.id, PASSWORD)
        assert not repositories.tables.verification_results
