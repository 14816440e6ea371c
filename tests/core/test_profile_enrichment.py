"""Enrichment of the profiles of new users."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.jobs import EnrichProfileJob, JobContext
from referral.core.entities.users import Profile, Role
from referral.core.errors import RescheduleJob
from referral.core.ports.third_parties import Enrichment
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.job_dispatch import DispatchJob
from tests.core.service import PASSWORD, InMemoryService
from tests.support.fakes.third_parties import FakeEnrichment

ANN = Profile(name="Ann Example", country="Finland")
JOB_CONTEXT = JobContext(UUID(int=7), 0)


async def profile_of(service: InMemoryService, user_id: UUID) -> Profile | None:
    """Return the profile in the account view."""
    return (await service.show_account(user_id)).profile


async def test_enrichment_stores_the_profile(service: InMemoryService) -> None:
    """A later result replaces it."""
    ann = await service.create_account("Ann@example.com")
    enrichment = FakeEnrichment(ANN)
    service.override(Enrichment | None, enrichment)
    enrich = service.get(DispatchJob)
    for found in (ANN, replace(ANN, title="Head of Examples")):
        enrichment.profile = found
        await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
        assert await profile_of(service, ann.id) == found
    assert enrichment.calls == ["Ann@example.com"] * 2
    assert enrichment.time_limits == [timedelta(seconds=10)] * 2
    async with service.database.read() as repositories:
        assert repositories.tables.profile_times == {ann.id: service.clock.now()}


async def test_unknown_person_has_no_profile(service: InMemoryService) -> None:
    """The job is done."""
    ann = await service.create_account("ann@example.com")
    service.override(Enrichment | None, FakeEnrichment())
    await service.get(DispatchJob)(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert await profile_of(service, ann.id) is None


async def test_missing_response_is_retried(service: InMemoryService) -> None:
    """Up to 18 times, counted as attempts without a response."""
    ann = await service.create_account("ann@example.com")
    service.override(Enrichment | None, FakeEnrichment(ANN, available=False))
    enrich = service.get(DispatchJob)
    for counters in ({}, {"unanswered": 17, "undecided": 99}):
        with pytest.raises(RescheduleJob) as rescheduled:
            await enrich(EnrichProfileJob(ann.id), replace(JOB_CONTEXT, counters=counters))
        assert rescheduled.value.counter == "unanswered"
    await enrich(EnrichProfileJob(ann.id), replace(JOB_CONTEXT, counters={"unanswered": 18}))
    assert await profile_of(service, ann.id) is None


async def test_profile_of_an_erased_user_is_not_stored(service: InMemoryService) -> None:
    """Neither when the account is erased during the call, nor before it."""
    ann = await service.create_account("ann@example.com")

    async def erase() -> None:
        async with service.database.begin() as repositories:
            await repositories.users.erase(ann.id, service.clock.now())

    enrichment = FakeEnrichment(ANN, during_call=erase)
    service.override(Enrichment | None, enrichment)
    enrich = service.get(DispatchJob)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert len(enrichment.calls) == 1
    async with service.database.read() as repositories:
        assert not repositories.tables.profiles


@pytest.mark.parametrize("role", Role)
async def test_the_job_is_queued_where_enrichment_is_on(
    service: InMemoryService, role: Role
) -> None:
    """For those who register themselves; without it a job left over does nothing."""
    service.override(Enrichment | None, FakeEnrichment(ANN))
    user = await service.register(NewAccount("ann@example.com", PASSWORD, role=role))
    async with service.database.read() as repositories:
        queued = EnrichProfileJob(user.id) in repositories.tables.jobs.values()
    assert queued is (role is Role.MEMBER)
    service.override(Enrichment | None, None)
    await service.get(DispatchJob)(EnrichProfileJob(user.id), JOB_CONTEXT)
    assert await profile_of(service, user.id) is None
