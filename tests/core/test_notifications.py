"""Mails: recipients, content, quotas and retries."""

from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.jobs import (
    CodeMailJob,
    Job,
    JobContext,
    PruneJob,
    ReferralMailJob,
    WelcomeMailJob,
)
from referral.core.entities.mail import Mail
from referral.core.entities.rate_limits import Rate
from referral.core.entities.users import Locale, User
from referral.core.errors import (
    NoActiveCode,
    NotFound,
    ReferralCodeUnusable,
    RescheduleJob,
    TooManyRequests,
    Unavailable,
)
from referral.core.use_cases.accounts import (
    AccountUpdate,
    InspectUnsubscribeToken,
    Unsubscribe,
    UpdateAccount,
)
from referral.core.use_cases.codes import CodeRenewal
from referral.core.use_cases.job_dispatch import DispatchJob
from referral.core.use_cases.notifications import RequestCodeMail
from tests.core.service import InMemoryService

HOUR = timedelta(hours=1)


class MailService(InMemoryService):
    """A service, and a worker that tests run explicitly."""

    async def mail_active_code(self, user: User) -> None:
        """Request the active code by mail."""
        await self.get(RequestCodeMail)(user.id)

    async def run_job(self, job: Job, number: int = 1, attempt: int = 0) -> None:
        """Run one job."""
        await self.get(DispatchJob)(job, JobContext(UUID(int=number), attempt))

    async def run_all_jobs(self) -> None:
        """Run every job once, and skip those that are rescheduled."""
        for number, job in enumerate(await self.jobs()):
            try:
                await self.run_job(job, number)
            except RescheduleJob:
                continue


@pytest.fixture
def service() -> MailService:
    """A service without accounts."""
    return MailService()


async def test_registration_queues_mails_to_the_user_and_the_referrer(
    service: MailService,
) -> None:
    """Both jobs are committed with the account and hold ids."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    bob = await service.create_account("bob@example.com", referral_code="ANN")
    jobs = await service.jobs()
    assert jobs[:2] == [WelcomeMailJob(ann.id), WelcomeMailJob(bob.id)]
    assert isinstance(jobs[2], ReferralMailJob)


async def test_rejected_registration_queues_nothing(service: MailService) -> None:
    """Without an account there is no job."""
    with pytest.raises(ReferralCodeUnusable):
        await service.create_account("bob@example.com", referral_code="NOBODYS")
    assert await service.jobs() == []


async def test_mails_go_to_their_recipients_in_their_locale(service: MailService) -> None:
    """The new user is welcomed, and the referrer is notified.

    A mail shows the address as entered, and goes to its domain in canonical form.
    """
    ann = await service.create_account("Ann@Example.COM", locale=Locale.RU)
    await service.create_code(ann, text="ANN")
    await service.create_account("bob@example.com", referral_code="ANN")
    await service.run_all_jobs()
    docs = "http://test/docs"
    assert service.mailer.sent == [
        Mail(
            UUID(int=0),
            "Ann@example.com",
            Locale.RU,
            "welcome",
            {"email": "Ann@Example.COM", "docs": docs},
        ),
        Mail(
            UUID(int=1),
            "bob@example.com",
            Locale.EN,
            "welcome",
            {"email": "bob@example.com", "docs": docs},
        ),
        Mail(
            UUID(int=2),
            "Ann@example.com",
            Locale.RU,
            "referral",
            {"emails": ["bob@example.com"], "more": 0},
            unsubscribe_url=f"http://test/unsubscribe/unsubscribe-{ann.id}",
        ),
    ]


async def test_unsubscribed_referrer_is_never_notified_of_that_referral(
    service: MailService,
) -> None:
    """Referrals from the unsubscribed period stay unreported after subscribing again."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    await service.get(Unsubscribe)(f"unsubscribe-{ann.id}")
    assert (await service.show_account(ann.id)).user.notify_on_referral is False
    await service.create_account("bob@example.com", referral_code="ANN")
    await service.run_all_jobs()
    await service.get(UpdateAccount)(ann.id, AccountUpdate(None, notify_on_referral=True))
    await service.create_account("cid@example.com", referral_code="ANN")
    *_, last = await service.jobs()
    await service.run_job(last, 99, attempt=1)
    reported = [
        mail.variables["emails"] for mail in service.mailer.sent if mail.template == "referral"
    ]
    assert reported == [["cid@example.com"]]


async def test_blocked_user_gets_no_mail(service: MailService) -> None:
    """Neither a queued welcome mail nor a notification of a referral."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    await service.create_account("bob@example.com", referral_code="ANN")
    await service.block_account(ann.email)
    await service.run_all_jobs()
    assert {mail.to for mail in service.mailer.sent} == {"bob@example.com"}


@pytest.mark.parametrize("use_case", [InspectUnsubscribeToken, Unsubscribe])
async def test_unsubscribing_rejects_an_invalid_token(
    service: MailService, use_case: type[InspectUnsubscribeToken | Unsubscribe]
) -> None:
    """Neither garbage nor an unknown id is accepted."""
    for token in ("garbage", f"unsubscribe-{UUID(int=1)}"):
        with pytest.raises(NotFound):
            await service.get(use_case)(token)


async def test_unsubscribe_token_is_inspected_without_effect(service: MailService) -> None:
    """The page shows whose notifications the form turns off."""
    ann = await service.create_account("ann@example.com")
    user = await service.get(InspectUnsubscribeToken)(f"unsubscribe-{ann.id}")
    assert (user.email, user.notify_on_referral) == ("ann@example.com", True)


async def test_active_code_is_mailed_to_its_owner(service: MailService) -> None:
    """With its link, its QR code and the uses left, if they are limited."""
    ann = await service.create_account("Ann@Example.COM", locale=Locale.RU)
    code = await service.create_code(ann, text="ANN", max_uses=3)
    await service.create_account("bob@example.com", referral_code="ANN")
    await service.mail_active_code(ann)
    *_, job = await service.jobs()
    await service.run_job(job, 7)
    await service.renew_code(ann.id, code.id, CodeRenewal(unlimited=True))
    await service.run_job(job, 7)
    link = "http://test/r/ANN"
    for mail, left in zip(service.mailer.sent, (2, None), strict=True):
        variables = {"code": "ANN", "expires_at": code.expires_at, "link": link, "left": left}
        assert mail == Mail(
            UUID(int=7), "Ann@example.com", Locale.RU, "code", variables, qr_url=link
        )


async def test_code_mail_needs_an_active_code(service: MailService) -> None:
    """The request is rejected; a code that is deactivated before the mail is sent is not mailed."""
    ann = await service.create_account("ann@example.com")
    with pytest.raises(NoActiveCode):
        await service.mail_active_code(ann)
    code = await service.create_code(ann)
    await service.mail_active_code(ann)
    await service.deactivate_code(ann.id, code.id)
    await service.run_all_jobs()
    assert [mail.template for mail in service.mailer.sent] == ["welcome"]


async def test_recipient_gets_at_most_five_mails_an_hour(service: MailService) -> None:
    """The welcome mail counts; the next mail is allowed when the oldest is an hour old."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann)
    await service.run_all_jobs()
    for _ in range(4):
        await service.mail_active_code(ann)
    service.clock.advance(minutes=20)
    with pytest.raises(TooManyRequests) as raised:
        await service.mail_active_code(ann)
    assert raised.value.retry_after == timedelta(minutes=40)
    assert len(await service.jobs()) == 5


async def test_one_slot_is_reserved_for_mails_that_the_user_requests(service: MailService) -> None:
    """Strangers who register cannot use up the whole quota of a referrer."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(9):
        await service.create_account(f"u{number}@example.com", referral_code="ANN")
    await service.run_all_jobs()
    assert len([mail for mail in service.mailer.sent if mail.to == "ann@example.com"]) == 4
    service.clock.advance(minutes=20)
    *_, last = await service.jobs()
    with pytest.raises(RescheduleJob) as rescheduled:
        await service.run_job(last, 99)
    assert rescheduled.value.delay == timedelta(minutes=40)
    await service.mail_active_code(ann)
    with pytest.raises(TooManyRequests):
        await service.mail_active_code(ann)


async def test_delayed_referrals_share_the_next_mail(service: MailService) -> None:
    """Each referral is reported once, by the first job that gets a slot."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(6):
        await service.create_account(f"u{number}@example.com", referral_code="ANN")
    await service.run_all_jobs()
    service.mailer.sent.clear()
    service.clock.advance(hours=1)
    for number, job in enumerate(await service.jobs()):
        if isinstance(job, ReferralMailJob) and number > 7:
            await service.run_job(job, number, attempt=1)
    assert [mail.variables["emails"] for mail in service.mailer.sent] == [
        ["u3@example.com", "u4@example.com", "u5@example.com"]
    ]


async def test_long_list_of_referrals_is_truncated(service: MailService) -> None:
    """The mail lists the first 50 e-mail addresses and counts the rest."""
    service.configure(limit_mail=Rate(1, HOUR))
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(52):
        await service.create_account(f"u{number}@example.com", referral_code="ANN")
    last = (await service.jobs())[-1]
    await service.run_job(last, attempt=1)
    variables = service.mailer.sent[0].variables
    assert (len(list(variables["emails"])), variables["more"]) == (50, 2)  # type: ignore[call-overload]


async def test_retried_mail_keeps_its_id_and_slot(service: MailService) -> None:
    """A retry takes no second slot of the quota."""
    service.configure(limit_mail=Rate(1, HOUR))
    ann = await service.create_account("ann@example.com")
    service.mailer.error = Unavailable()
    with pytest.raises(Unavailable):
        await service.run_job(WelcomeMailJob(ann.id), 7)
    service.mailer.error = None
    await service.run_job(WelcomeMailJob(ann.id), 7, attempt=1)
    assert [mail.id for mail in service.mailer.sent] == [UUID(int=7)]


async def test_without_a_limit_every_referral_is_mailed(service: MailService) -> None:
    """Each new referral has its own mail."""
    service.configure(limit_mail=Rate(None, HOUR))
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(9):
        await service.create_account(f"u{number}@example.com", referral_code="ANN")
    await service.run_all_jobs()
    assert len([mail for mail in service.mailer.sent if mail.template == "referral"]) == 9


async def test_jobs_of_a_deleted_account_do_nothing(service: MailService) -> None:
    """They send no mail and do not fail."""
    gone = UUID(int=1)
    for job in (WelcomeMailJob(gone), ReferralMailJob(gone), CodeMailJob(gone, gone)):
        await service.run_job(job)
    assert service.mailer.sent == []


async def test_pruning_deletes_old_mail_slots(service: MailService) -> None:
    """Slots of the current day stay."""
    ann = await service.create_account("ann@example.com")
    await service.run_job(WelcomeMailJob(ann.id), 1)
    service.clock.advance(days=2)
    await service.run_job(WelcomeMailJob(ann.id), 2)
    await service.run_job(PruneJob())
    async with service.database.read() as repositories:
        assert list(repositories.tables.mail_slots) == [UUID(int=2)]
