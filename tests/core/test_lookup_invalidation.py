"""That every change of a code makes look-ups forget its owner's address."""

from collections.abc import Awaitable, Callable

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.jobs import InvalidateLookupJob
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, Unavailable
from referral.core.policies.lookup_invalidation import RetryLookupInvalidation
from referral.core.use_cases.codes import CodeRenewal
from tests.core.service import InMemoryService

Change = Callable[[InMemoryService, User, Code], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "replace": lambda world, ann, _: world.create_code(ann, replace=True),
    "renew": lambda world, ann, code: world.renew_code(
        ann.id, code.id, CodeRenewal(Expiry(lifetime_minutes=99))
    ),
    "deactivate": lambda world, ann, code: world.deactivate_code(ann.id, code.id),
    "activate": lambda world, ann, code: world.activate_code(ann.id, code.id),
    "delete": lambda world, ann, code: world.delete_code(ann.id, code.id),
    "use up": lambda world, _, code: world.create_account(
        "bob@example.com", referral_code=code.text
    ),
}


@pytest.mark.parametrize("how", CHANGES)
async def test_code_change_invalidates_the_lookup(world: InMemoryService, how: str) -> None:
    """Each change of a code invalidates the cached look-up of its owner's e-mail address."""
    ann = await world.create_account("Ann@example.com")
    code = await world.create_code(ann, max_uses=1)
    await world.look_up_code("ann@EXAMPLE.com")
    world.cache.invalidated.clear()
    await CHANGES[how](world, ann, code)
    assert world.cache.invalidated == ["ann@example.com"]


async def test_use_before_the_last_does_not_invalidate(world: InMemoryService) -> None:
    """A popular code stays cached while users register with it."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann, max_uses=2)
    world.cache.invalidated.clear()
    await world.create_account("bob@example.com", referral_code=code.text)
    assert world.cache.invalidated == []


async def test_cached_code_expires_by_the_clock(world: InMemoryService) -> None:
    """An expired code is not found even while the cache still holds it."""
    ann = await world.create_account("ann@example.com")
    await world.create_code(ann, minutes=5)
    await world.look_up_code("ann@example.com")
    world.clock.advance(minutes=5)
    with pytest.raises(NoActiveCode):
        await world.look_up_code("ann@example.com")


async def test_failed_invalidation_is_retried_by_a_job(world: InMemoryService) -> None:
    """The change succeeds, and the job fails until the cache is available again."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann)
    world.cache.available = False
    await world.delete_code(ann.id, code.id)
    async with world.database.read() as records:
        jobs = [job for job in records.tables.jobs.values() if isinstance(job, InvalidateLookupJob)]
    assert jobs == [InvalidateLookupJob(ann.id)]
    clear_later = RetryLookupInvalidation(world.cache, world.database)
    with pytest.raises(Unavailable):
        await clear_later(jobs[0])
    world.cache.available = True
    world.cache.invalidated.clear()
    await clear_later(jobs[0])
    assert world.cache.invalidated == ["ann@example.com"]
