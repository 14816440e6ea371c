"""Mails with links that confirm an address or reset a password, and the requests for them."""

from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.jobs import (
    ConfirmationMailJob,
    Job,
    JobContext,
    PasswordResetMailJob,
    WelcomeMailJob,
)
from referral.core.entities.mail import Mail
from referral.core.entities.rate_limits import Rate
from referral.core.entities.users import Locale, User
from referral.core.errors import (
    EmailAlreadyVerified,
    InvalidRequest,
    RescheduleJob,
    TokenUnusable,
    TooManyRequests,
    Unauthenticated,
)
from referral.core.use_cases.email_links import (
    InspectLink,
    RequestConfirmationMail,
    RequestPasswordReset,
)
from referral.core.use_cases.job_dispatch import DispatchJob
from tests.core.service import CLIENT_IP, InMemoryService

MAIL_ID = UUID(int=7)
HOUR = timedelta(hours=1)


@pytest.fixture
def service() -> InMemoryService:
    """A service with e-mail verification on."""
    return InMemoryService(email_verification="on")


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A Russian-speaking user with an unconfirmed address and a domain in capitals."""
    return await service.create_account("Ann@Example.COM", locale=Locale.RU)


async def run(service: InMemoryService, job: Job, number: int = 7) -> None:
    """Run a job once."""
    await service.get(DispatchJob)(job, JobContext(UUID(int=number), 0))


async def stored_tokens(service: InMemoryService) -> list[OneTimeToken]:
    """Return the stored tokens."""
    async with service.database.read() as repositories:
        return list(repositories.tables.one_time_tokens.values())


def token_in(mail: Mail) -> str:
    """Return the token in the link of a mail."""
    return str(mail.variables["link"]).partition("=")[2]


@pytest.mark.parametrize(
    ("job_type", "template", "purpose", "lifetime"),
    [
        (ConfirmationMailJob, "confirm", TokenPurpose.CONFIRM, timedelta(hours=24)),
        (PasswordResetMailJob, "reset", TokenPurpose.RESET, timedelta(hours=1)),
    ],
)
async def test_link_mail_has_a_link_of_limited_lifetime(
    service: InMemoryService,
    ann: User,
    job_type: type[ConfirmationMailJob | PasswordResetMailJob],
    template: str,
    purpose: TokenPurpose,
    lifetime: timedelta,
) -> None:
    """A day to confirm and an hour to reset; only a digest of the token is stored."""
    await run(service, job_type(ann.id))
    [mail] = service.mailer.sent
    token = token_in(mail)
    link = f"http://test/{template}?token={token}"
    variables = {"email": "Ann@Example.COM", "link": link}
    assert mail == Mail(MAIL_ID, "Ann@example.com", Locale.RU, template, variables)
    digest, ends_at = service.token_generator.digest(token), service.clock.now() + lifetime
    assert await stored_tokens(service) == [OneTimeToken(digest, ann.id, purpose, ends_at)]
    service.clock.advance(seconds=lifetime.total_seconds(), microseconds=-1)
    assert await service.get(InspectLink)(token, purpose) == ann
    service.clock.advance(microseconds=1)
    with pytest.raises(TokenUnusable):
        await service.get(InspectLink)(token, purpose)


async def test_confirmed_user_gets_no_confirmation_mail(
    service: InMemoryService, ann: User
) -> None:
    """The job may run after the confirmation; it sends no mail and stores no token."""
    token = await service.create_mail_token(ann)
    await service.confirm_email(token, caller_id=ann.id, password=None, client_ip=CLIENT_IP)
    await run(service, ConfirmationMailJob(ann.id))
    assert (service.mailer.sent, await stored_tokens(service)) == ([], [])


async def test_blocked_or_missing_user_gets_no_link(service: InMemoryService, ann: User) -> None:
    """Neither to confirm nor to reset."""
    await service.block_account(ann.email)
    for user_id in (ann.id, UUID(int=1)):
        await run(service, PasswordResetMailJob(user_id), 1)
        await run(service, ConfirmationMailJob(user_id), 2)
    assert service.mailer.sent == []


async def test_confirmation_mail_waits_for_a_slot(service: InMemoryService, ann: User) -> None:
    """The fifth mail of an hour waits, as one slot is reserved, unless its request was counted."""
    for number in range(4):
        await run(service, WelcomeMailJob(ann.id), number)
    service.clock.advance(minutes=20)
    with pytest.raises(RescheduleJob) as rescheduled:
        await run(service, ConfirmationMailJob(ann.id))
    assert (rescheduled.value.delay, rescheduled.value.counter) == (timedelta(minutes=40), None)
    assert len(service.mailer.sent) == 4
    assert await stored_tokens(service) == []
    await run(service, ConfirmationMailJob(ann.id, counted=True))
    assert service.mailer.sent[-1].template == "confirm"


async def test_the_only_slot_is_not_reserved(service: InMemoryService, ann: User) -> None:
    """With a quota of one mail, a mail that nobody requested can use it."""
    service.configure(limit_mail=Rate(1, HOUR))
    await run(service, ConfirmationMailJob(ann.id), 1)
    with pytest.raises(RescheduleJob):
        await run(service, ConfirmationMailJob(ann.id), 2)
    assert len(service.mailer.sent) == 1


async def test_requested_confirmation_mail_is_counted_at_once(
    service: InMemoryService, ann: User
) -> None:
    """The sixth request of an hour is rejected with the time to wait, and queues no mail."""
    request = service.get(RequestConfirmationMail)
    before = len(await service.jobs())
    for _ in range(5):
        await request(ann.id)
    service.clock.advance(minutes=45)
    with pytest.raises(TooManyRequests) as raised:
        await request(ann.id)
    assert raised.value.retry_after == timedelta(minutes=15)
    assert raised.value.detail == "Too many requests. Try again later."
    queued = (await service.jobs())[before:]
    assert queued == [ConfirmationMailJob(ann.id, counted=True)] * 5


async def test_confirmed_user_cannot_request_a_confirmation_mail(
    service: InMemoryService, ann: User
) -> None:
    """Neither can an erased one."""
    token = await service.create_mail_token(ann)
    await service.confirm_email(token, caller_id=ann.id, password=None, client_ip=CLIENT_IP)
    with pytest.raises(EmailAlreadyVerified):
        await service.get(RequestConfirmationMail)(ann.id)
    with pytest.raises(Unauthenticated):
        await service.get(RequestConfirmationMail)(UUID(int=1))


async def test_password_reset_is_mailed_to_the_owner_of_an_address(
    service: InMemoryService, ann: User
) -> None:
    """In any spelling; a request for an unknown address queues a job too, which does nothing."""
    request = service.get(RequestPasswordReset)
    await request("aNN@EXAMPLE.com")
    await request("nobody@example.com")
    *_, known, unknown = await service.jobs()
    assert known == PasswordResetMailJob(ann.id)
    assert isinstance(unknown, PasswordResetMailJob)
    for job in (known, unknown):
        await run(service, job)
    assert [mail.template for mail in service.mailer.sent] == ["reset"]
    with pytest.raises(InvalidRequest):
        await request("no address")


@pytest.mark.parametrize("email", ["ann@example.com", "nobody@example.com"])
async def test_password_reset_requests_over_the_quota_are_ignored(
    service: InMemoryService, ann: User, email: str
) -> None:
    """Without an error: the caller cannot tell whether the address has an account."""
    assert ann.email_key == "ann@example.com"
    before = len(await service.jobs())
    for _ in range(7):
        await service.get(RequestPasswordReset)(email)
    assert len(await service.jobs()) == before + 5
    service.clock.advance(hours=1)
    await service.get(RequestPasswordReset)(email)
    assert len(await service.jobs()) == before + 6


async def test_password_resets_have_a_quota_of_their_own(
    service: InMemoryService, ann: User
) -> None:
    """Requests of a stranger do not block the other mails to an address, nor those to others."""
    for _ in range(6):
        await service.get(RequestPasswordReset)(ann.email)
    for _ in range(5):
        await service.get(RequestConfirmationMail)(ann.id)
    bob = await service.create_account("bob@example.com")
    await service.get(RequestPasswordReset)(bob.email)
    assert (await service.jobs())[-1] == PasswordResetMailJob(bob.id)
