"""Effects of an unconfirmed e-mail address, with and without e-mail verification."""

from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Scope
from referral.core.entities.jobs import (
    ConfirmationMailJob,
    EnrichProfileJob,
    Job,
    JobContext,
    WelcomeMailJob,
)
from referral.core.entities.users import Profile, User
from referral.core.errors import NoActiveCode
from referral.core.ports.third_parties import Enrichment
from referral.core.use_cases.clients import CreateClient, IntrospectToken
from referral.core.use_cases.enrichment import EnrichProfile
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.third_parties import FakeEnrichment

JOB_CONTEXT = JobContext(UUID(int=7), 0)


async def confirm(service: InMemoryService, user: User) -> None:
    """Confirm by the link of a mail."""
    token = await service.create_mail_token(user)
    await service.confirm_email(token, caller_id=user.id, password=None, client_ip=CLIENT_IP)


async def test_lookup_by_an_unconfirmed_email_finds_no_code(service: InMemoryService) -> None:
    """The error is that of an unknown address; the code itself is valid."""
    service.configure(email_verification="on")
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    with pytest.raises(NoActiveCode) as raised:
        await service.look_up_code("ann@example.com")
    assert raised.value.detail == NoActiveCode.default_detail
    assert await service.check_code(code.text) == code


async def test_confirmation_invalidates_the_lookup(service: InMemoryService) -> None:
    """A cached miss is not returned after the confirmation."""
    service.configure(email_verification="on")
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    with pytest.raises(NoActiveCode):
        await service.look_up_code("ann@example.com")
    await confirm(service, ann)
    assert await service.look_up_code("ann@example.com") == code


async def test_without_verification_unconfirmed_emails_find_their_codes(
    service: InMemoryService,
) -> None:
    """`email_verified` is false there until a link is used."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    assert not ann.email_verified
    assert await service.look_up_code("ann@example.com") == code
    await confirm(service, ann)
    assert (await service.show_account(ann.id)).user.email_verified


@pytest.mark.parametrize(
    ("verification", "confirmed", "email"),
    [
        ("on", False, None),
        ("on", True, "ann@example.com"),
        ("off", False, "ann@example.com"),
        ("off", True, "ann@example.com"),
    ],
)
async def test_introspection_hides_an_unconfirmed_email(
    service: InMemoryService,
    verification: str,
    *,
    confirmed: bool,
    email: str | None,
) -> None:
    """For access and refresh tokens alike; `email_verified` tells whether a link was used."""
    service.configure(email_verification=verification)
    ann = await service.create_account("ann@example.com")
    if confirmed:
        await confirm(service, ann)
    tokens = await service.log_in("ann@example.com", PASSWORD, CLIENT_IP)
    client, _ = await service.get(CreateClient)("shop", [Scope.USERS_READ], OPERATOR)
    introspect = service.get(IntrospectToken)
    for token in (tokens.access_token, tokens.refresh_token):
        found = await introspect(client, token)
        assert found is not None
        assert (found.email, found.email_verified) == (email, confirmed)


async def test_confirmation_queues_enrichment(service: InMemoryService) -> None:
    """Registration queues the confirmation mail only."""
    service.configure(email_verification="on")
    enrichment = FakeEnrichment()
    service.override(Enrichment | None, enrichment)
    ann = await service.create_account("ann@example.com")
    assert await service.jobs() == [ConfirmationMailJob(ann.id)]
    await confirm(service, ann)
    assert await service.jobs() == [
        ConfirmationMailJob(ann.id),
        WelcomeMailJob(ann.id),
        EnrichProfileJob(ann.id),
    ]


async def test_without_verification_registration_queues_enrichment(
    service: InMemoryService,
) -> None:
    """A confirmation link that is used later queues nothing again."""
    enrichment = FakeEnrichment()
    service.override(Enrichment | None, enrichment)
    ann = await service.create_account("ann@example.com")
    expected: list[Job] = [WelcomeMailJob(ann.id), EnrichProfileJob(ann.id)]
    assert await service.jobs() == expected
    await confirm(service, ann)
    assert await service.jobs() == expected


async def test_enrichment_job_skips_an_unconfirmed_email(
    service: InMemoryService,
) -> None:
    """Such jobs remain after verification is switched on."""
    ann = await service.create_account("ann@example.com")
    enrichment = FakeEnrichment(Profile(name="Ann Example"))
    service.configure(email_verification="on")
    service.override(Enrichment | None, enrichment)
    enrich = service.get(EnrichProfile)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert enrichment.calls == []
    await confirm(service, ann)
    await enrich(EnrichProfileJob(ann.id), JOB_CONTEXT)
    assert (await service.show_account(ann.id)).profile == enrichment.profile
