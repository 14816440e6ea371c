"""That every change of a code makes look-ups forget its owner's address."""

from collections.abc import Awaitable, Callable

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.jobs import Clearing
from referral.core.entities.users import User
from referral.core.errors import NoActiveCode, Unavailable
from referral.core.policies.lookup_invalidation import InvalidateLookupLater
from referral.core.use_cases.codes import Renewal
from tests.core.world import World

Change = Callable[[World, User, Code], Awaitable[object]]

CHANGES: dict[str, Change] = {
    "replace": lambda world, ann, _: world.issue(ann, replace=True),
    "renew": lambda world, ann, code: world.renew_code(
        ann.id, code.id, Renewal(Expiry(minutes=99))
    ),
    "deactivate": lambda world, ann, code: world.deactivate_code(ann.id, code.id),
    "activate": lambda world, ann, code: world.activate_code(ann.id, code.id),
    "delete": lambda world, ann, code: world.delete_code(ann.id, code.id),
    "use up": lambda world, _, code: world.join("bob@example.com", referral_code=code.text),
}


@pytest.mark.parametrize("how", CHANGES)
async def test_a_change_clears(world: World, how: str) -> None:
    """After a change the address of the code's owner is looked up anew."""
    ann = await world.join("Ann@example.com")
    code = await world.issue(ann, max_uses=1)
    await world.look_up_code("ann@EXAMPLE.com")
    world.cache.cleared.clear()
    await CHANGES[how](world, ann, code)
    assert world.cache.cleared == ["ann@example.com"]


async def test_a_use_that_is_not_the_last_clears_nothing(world: World) -> None:
    """A popular code stays remembered while people join with it."""
    ann = await world.join("ann@example.com")
    code = await world.issue(ann, max_uses=2)
    world.cache.cleared.clear()
    await world.join("bob@example.com", referral_code=code.text)
    assert world.cache.cleared == []


async def test_what_is_remembered_expires_with_the_code(world: World) -> None:
    """The clock has the last word, not the cache."""
    ann = await world.join("ann@example.com")
    await world.issue(ann, minutes=5)
    await world.look_up_code("ann@example.com")
    world.clock.advance(minutes=5)
    with pytest.raises(NoActiveCode):
        await world.look_up_code("ann@example.com")


async def test_what_could_not_be_cleared_is_left_to_a_job(world: World) -> None:
    """The change succeeds, and the job clears when the cache can be reached, and not before."""
    ann = await world.join("ann@example.com")
    code = await world.issue(ann)
    world.cache.answers = False
    await world.delete_code(ann.id, code.id)
    async with world.database.read() as records:
        jobs = [job for job in records.tables.jobs.values() if isinstance(job, Clearing)]
    assert jobs == [Clearing(ann.id)]
    clear_later = InvalidateLookupLater(world.cache, world.database)
    with pytest.raises(Unavailable):
        await clear_later(jobs[0])
    world.cache.answers = True
    world.cache.cleared.clear()
    await clear_later(jobs[0])
    assert world.cache.cleared == ["ann@example.com"]
