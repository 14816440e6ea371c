"""What an address proves before and after its owner has confirmed it."""

from uuid import UUID

import pytest

from referral.core.entities.clients import Scope
from referral.core.entities.jobs import ConfirmationMail, Enriching, Job, JobContext, WelcomeMail
from referral.core.entities.users import Profile, User, Verification
from referral.core.errors import NoActiveCode
from referral.core.use_cases.clients import CreateClient, Credentials, Introspect
from referral.core.use_cases.enrichment import Enrich
from tests.core.world import ADDRESS, PASSWORD, World
from tests.support.fake_knowledge import FakeEnrichment

ON = Verification(required=True)
OFF = Verification(required=False)
RUN = JobContext(UUID(int=7), 0)


async def confirm(world: World, user: User) -> None:
    """Follow the link in the mail."""
    token = await world.mail_token(user)
    await world.confirm_email(token, caller=user.id, password=None, address=ADDRESS)


async def jobs_of(world: World) -> list[Job]:
    """Return all jobs that were queued so far."""
    async with world.database.read() as records:
        return list(records.tables.jobs.values())


async def test_an_unconfirmed_address_finds_no_code(world: World) -> None:
    """The refusal is that of an unknown address; the code itself is good."""
    world.have_addresses_confirmed()
    ann = await world.join("ann@example.com")
    code = await world.issue(ann)
    with pytest.raises(NoActiveCode) as refused:
        await world.look_up_code("ann@example.com")
    assert refused.value.detail == NoActiveCode.default
    assert await world.check_code(code.text) == code


async def test_a_confirmation_invalidates_the_cached_look_up(world: World) -> None:
    """That nothing was found a moment ago is not repeated once there is something to find."""
    world.have_addresses_confirmed()
    ann = await world.join("ann@example.com")
    code = await world.issue(ann)
    with pytest.raises(NoActiveCode):
        await world.look_up_code("ann@example.com")
    await confirm(world, ann)
    assert await world.look_up_code("ann@example.com") == code


async def test_where_nothing_is_verified_every_address_finds_its_code(world: World) -> None:
    """Though the address counts as unconfirmed there as well, until a link was used."""
    ann = await world.join("ann@example.com")
    code = await world.issue(ann)
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
    world: World, verification: Verification, *, confirmed: bool, email: str | None
) -> None:
    """For access and refresh tokens alike; `email_verified` says whether a link was used."""
    ann = await world.join("ann@example.com")
    if confirmed:
        await confirm(world, ann)
    tokens = await world.log_in("ann@example.com", PASSWORD, ADDRESS)
    create = CreateClient(world.clock, world.database, world.ids, world.secrets)
    client, secret = await create("shop", [Scope.USERS_READ])
    introspect = Introspect(
        world.access_tokens, world.clock, world.database, world.secrets, verification
    )
    for token in (tokens.access_token, tokens.refresh_token):
        found = await introspect(Credentials(str(client.id), secret), token)
        assert found is not None
        assert (found.email, found.email_verified) == (email, confirmed)


async def test_a_profile_is_asked_for_after_the_confirmation(world: World) -> None:
    """Registration queues the confirmation alone; the link queues the greeting and the question."""
    world.have_addresses_confirmed()
    enrichment = FakeEnrichment()
    world.have_profiles_asked_for(enrichment)
    ann = await world.join("ann@example.com")
    assert await jobs_of(world) == [ConfirmationMail(ann.id)]
    await confirm(world, ann)
    assert await jobs_of(world) == [
        ConfirmationMail(ann.id),
        WelcomeMail(ann.id),
        Enriching(ann.id),
    ]


async def test_where_nothing_is_verified_a_profile_is_asked_for_at_registration(
    world: World,
) -> None:
    """A link that is used later all the same queues nothing a second time."""
    enrichment = FakeEnrichment()
    world.have_profiles_asked_for(enrichment)
    ann = await world.join("ann@example.com")
    expected: list[Job] = [WelcomeMail(ann.id), Enriching(ann.id)]
    assert await jobs_of(world) == expected
    await confirm(world, ann)
    assert await jobs_of(world) == expected


async def test_a_job_left_over_asks_nobody_about_an_unconfirmed_address(world: World) -> None:
    """As after verification was switched on; once confirmed, the profile is stored."""
    ann = await world.join("ann@example.com")
    enrichment = FakeEnrichment(Profile(name="Ann Example"))
    enrich = Enrich(world.clock, world.database, enrichment, ON)
    await enrich(Enriching(ann.id), RUN)
    assert enrichment.asked == []
    await confirm(world, ann)
    await enrich(Enriching(ann.id), RUN)
    assert (await world.show_account(ann.id)).profile == enrichment.profile
