"""Looking up who a new user is."""

from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.jobs import Enriching, JobContext
from referral.core.entities.users import Profile, Role, Verification
from referral.core.errors import RescheduleJob
from referral.core.policies.third_party_retries import MAX_RETRIES, Fault
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.enrichment import Enrich
from tests.core.world import PASSWORD, World
from tests.support.fake_knowledge import FakeEnrichment

ANN = Profile(name="Ann Example", country="Finland")
RUN = JobContext(UUID(int=7), 0)
OFF = Verification(required=False)


async def profile_of(world: World, user_id: UUID) -> Profile | None:
    """Return what an account shows."""
    return (await world.show_account(user_id)).profile


async def test_what_is_found_becomes_the_profile(world: World) -> None:
    """And what is found later takes its place."""
    ann = await world.join("Ann@example.com")
    enrichment = FakeEnrichment(ANN)
    enrich = Enrich(world.clock, world.database, enrichment, OFF)
    for found in (ANN, replace(ANN, title="Head of Examples")):
        enrichment.profile = found
        await enrich(Enriching(ann.id), RUN)
        assert await profile_of(world, ann.id) == found
    assert enrichment.asked == ["Ann@example.com"] * 2


async def test_nothing_found_is_no_profile(world: World) -> None:
    """The job is done."""
    ann = await world.join("ann@example.com")
    await Enrich(world.clock, world.database, FakeEnrichment(), OFF)(Enriching(ann.id), RUN)
    assert await profile_of(world, ann.id) is None


async def test_no_answer_is_asked_for_again(world: World) -> None:
    """Until it has been often enough."""
    ann = await world.join("ann@example.com")
    enrich = Enrich(world.clock, world.database, FakeEnrichment(ANN, answers=False), OFF)
    with pytest.raises(RescheduleJob):
        await enrich(Enriching(ann.id), RUN)
    most = {str(Fault.UNANSWERED): MAX_RETRIES[Fault.UNANSWERED]}
    await enrich(Enriching(ann.id), replace(RUN, counters=most))
    assert await profile_of(world, ann.id) is None


async def test_what_is_found_of_the_erased_is_not_stored(world: World) -> None:
    """Neither when the account goes while the question is out, nor afterwards."""
    ann = await world.join("ann@example.com")

    async def erase() -> None:
        async with world.database.begin() as records:
            await records.users.erase(ann.id, world.clock.now())

    enrichment = FakeEnrichment(ANN, meanwhile=erase)
    enrich = Enrich(world.clock, world.database, enrichment, OFF)
    await enrich(Enriching(ann.id), RUN)
    await enrich(Enriching(ann.id), RUN)
    assert len(enrichment.asked) == 1
    async with world.database.read() as records:
        assert not records.tables.profiles


@pytest.mark.parametrize("role", Role)
async def test_the_job_is_queued_where_enrichment_is_on(world: World, role: Role) -> None:
    """For those who register themselves; without it a job left over does nothing."""
    world.register = replace(world.register, enrichment=FakeEnrichment(ANN))
    user = await world.register(NewAccount("ann@example.com", PASSWORD, role=role))
    async with world.database.read() as records:
        queued = Enriching(user.id) in records.tables.jobs.values()
    assert queued is (role is Role.MEMBER)
    await Enrich(world.clock, world.database, None, OFF)(Enriching(user.id), RUN)
    assert await profile_of(world, user.id) is None
