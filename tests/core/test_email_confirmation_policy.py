"""What an address proves before and after its owner has confirmed it."""

from uuid import UUID

import pytest

from referral.core.entities.clients import Scope
from referral.core.entities.jobs import (
    ConfirmationMailJob,
    EnrichProfileJob,
    Job,
    JobContext,
    WelcomeMailJob,
)
from referral.core.entities.users import EmailConfirmationPolicy, Profile, User
from referral.core.errors import NoActiveCode
from referral.core.use_cases.clients import ClientCredentials, CreateClient, IntrospectToken
from referral.core.use_cases.enrichment import EnrichProfile
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.third_parties import FakeEnrichment

ON = EmailConfirmationPolicy(required=True)
OFF = EmailConfirmationPolicy(required=False)
JOB_CONTEXT = JobContext(UUID(int=7), 0)


async def confirm(world: InMemoryService, user: User) -> None:
    """Follow the link in the mail."""
    token = await world.create_mail_token(user)
    await world.confirm_email(token, caller_id=user.id, password=None, client_ip=CLIENT_IP)


async def queued_jobs(world: InMemoryService) -> list[Job]:
    """Return all jobs that were queued so far."""
    async with world.database.read() as records:
        return list(records.tables.jobs.values())


async def test_an_unconfirmed_address_finds_no_code(world: InMemoryService) -> None:
    """The refusal is that of an unknown address; the code itself is good."""
    world.require_email_verification()
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann)
    with pytest.raises(NoActiveCode) as refused:
        await world.look_up_code("ann@example.com")
    assert refused.value.detail == NoActiveCode.default_detail
    assert await world.check_code(code.text) == code


async def test_a_confirmation_invalidates_the_cached_look_up(world: InMemoryService) -> None:
    """That nothing was found a moment ago is not repeated once there is something to find."""
    world.require_email_verification()
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann)
    with pytest.raises(NoActiveCode):
        await world.look_up_code("ann@example.com")
    await confirm(world, ann)
    assert await world.look_up_code("ann@example.com") == code


async def test_where_nothing_is_verified_every_address_finds_its_code(
    world: InMemoryService,
) -> None:
    """Though the address counts as unconfirmed there as well, until a link was used."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann)
    assert not ann.email_verified
    assert await world.look_up_code("ann@example.com") == code
    await confirm(world, ann)
    assert (await world.show_account(ann.id)).user.email_verified


@pytest.mark.parametrize(
    ("verification", "confirmed", "email"),
    [
        (ON, False, None),
        (ON, True, "ann@example.com"),
        (OFF, False, "ann@example.com"),
        (OFF, True, "ann@example.com"),
    ],
)
async def test_introspection_names_no_address_that_has_to_be_confirmed(
    world: InMemoryService,
    verification: EmailConfirmationPolicy,
    *,
    confirmed: bool,
    email: str | None,
) -> None:
    """For access and refresh tokens alike; `email_verified` says whether a link was used."""
    ann = await world.create_account("ann@example.com")
    if confirmed:
        await confirm(world, ann)
    tokens = await world.log_in("ann@example.com", PASSWORD, CLIENT_IP)
    create = CreateClient(world.clock, world.database, world.id_generator, world.token_generator)
    client, secret = await create("shop", [Scope.USERS_READ])
    introspect = IntrospectToken(
        world.access_tokens, world.clock, world.database, world.token_generator, verification
    )
    for token in (tokens.access_token, tokens.refresh_token):
        found = await introspect(ClientCredentials(str(client.id), secret), token)
        assert found is not None
        assert (found.email, found.email_verified) == (email, confirmed)


async def test_a_profile_is_asked_for_after_the_confirmation(world: InMemoryService) -> None:
    """Registration queues the confirmation alone; the link queues the greeting and the question."""
    world.require_email_verification()
    enrichment = FakeEnrichment()
    world.enable_enrichment(enrichment)
    ann = await world.create_account("ann@example.com")
    assert await queued_jobs(world) == [ConfirmationMailJob(ann.id)]
    await confirm(world, ann)
    assert await queued_jobs(world) == [
        ConfirmationMailJob(ann.id),
        WelcomeMailJob(ann.id),
        EnrichProfileJob(ann.id),
    ]


async def test_where_nothing_is_verified_a_profile_is_asked_for_at_registration(
    world: InMemoryService,
) -> None:
    """A link that is used later all the same queues nothing a second time."""
    enrichment = FakeEnrichment()
    world.enable_enrichment(enrichment)
    ann = await world.create_account("ann@example.com")
    expected: list[Job] = [WelcomeMailJob(ann.id), EnrichProfileJob(ann.id)]
    assert await queued_jobs(world) == expected
    await confirm(world, ann)
    assert await queued_jobs(world) == expected


async def test_a_job_left_over_asks_nobody_about_an_unconfirmed_address(
    world: InMemoryService,
) -> None:
    """As after verification was switched on; once confirmed, the profile is stored."""
    ann = await world.create_account("ann@example.com")
    enrichment = FakeEnrichment(Profile(name="Ann Example"))
    enrich = EnrichProfile(world.clock, world.database, enrichment, ON)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert enrichment.calls == []
    await confirm(world, ann)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert (await world.show_account(ann.id)).profile == enrichment.profile
