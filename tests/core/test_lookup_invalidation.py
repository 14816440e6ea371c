"""Changes of a code invalidate the cached look-up of its owner."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.jobs import InvalidateLookupJob, Job, JobContext
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, Unavailable
from referral.core.use_cases.codes import CodeRenewal
from referral.core.use_cases.job_dispatch import DispatchJob
from tests.core.service import InMemoryService
from tests.support.fakes.mail import FakeJobQueue

Change = Callable[[InMemoryService, User, Code], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "replace": lambda service, ann, _: service.create_code(ann, replace=True),
    "renew": lambda service, ann, code: service.renew_code(
        ann.id, code.id, CodeRenewal(Expiry(lifetime_minutes=99))
    ),
    "deactivate": lambda service, ann, code: service.deactivate_code(ann.id, code.id),
    "activate": lambda service, ann, code: service.activate_code(ann.id, code.id),
    "delete": lambda service, ann, code: service.delete_code(ann.id, code.id),
    "use up": lambda service, _, code: service.create_account(
        "bob@example.com", referral_code=code.text
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_code_change_invalidates_the_lookup(service: InMemoryService, change: str) -> None:
    """Each change of a code invalidates the cached look-up of its owner's e-mail address."""
    ann = await service.create_account("Ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    await service.look_up_code("ann@EXAMPLE.com")
    service.cache.invalidated.clear()
    await CHANGES[change](service, ann, code)
    assert service.cache.invalidated == ["ann@example.com"]


async def test_use_before_the_last_does_not_invalidate(service: InMemoryService) -> None:
    """A popular code stays cached while users register with it."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=2)
    service.cache.invalidated.clear()
    await service.create_account("bob@example.com", referral_code=code.text)
    assert service.cache.invalidated == []


async def test_cached_code_expires_by_the_clock(service: InMemoryService) -> None:
    """An expired code is not found even while the cache still holds it."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, minutes=5)
    await service.look_up_code("ann@example.com")
    service.clock.advance(minutes=5)
    with pytest.raises(NoActiveCode):
        await service.look_up_code("ann@example.com")


async def test_failed_invalidation_is_retried_by_a_job(service: InMemoryService) -> None:
    """The change succeeds, and the job fails until the cache is available again."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    service.cache.available = False
    await service.delete_code(ann.id, code.id)
    async with service.database.read() as repositories:
        jobs = [
            job for job in repositories.tables.jobs.values() if isinstance(job, InvalidateLookupJob)
        ]
    assert jobs == [InvalidateLookupJob(ann.id)]
    run, context = service.get(DispatchJob), JobContext(UUID(int=7), 0)
    with pytest.raises(Unavailable):
        await run(jobs[0], context)
    service.cache.available = True
    service.cache.invalidated.clear()
    await run(jobs[0], context)
    assert service.cache.invalidated == ["ann@example.com"]


async def test_change_succeeds_without_the_cache_and_the_queue(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed by then; the cached entry expires within the guaranteed time."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)

    async def fail(_: FakeJobQueue, *__: Job) -> None:
        raise Unavailable

    monkeypatch.setattr(FakeJobQueue, "enqueue", fail)
    service.cache.available = False
    await service.delete_code(ann.id, code.id)
    with pytest.raises(NoActiveCode):
        await service.show_active_code(ann.id)
