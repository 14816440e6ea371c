"""Who is mailed what and when, over fakes."""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.jobs import (
    CodeMailJob,
    Job,
    JobContext,
    PruneJob,
    ReferralMailJob,
    WelcomeMailJob,
)
from referral.core.entities.users import EmailConfirmationPolicy, Locale, User
from referral.core.errors import (
    NoActiveCode,
    NotFound,
    ReferralCodeUnusable,
    RescheduleJob,
    TooManyRequests,
    Unavailable,
)
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.email_deliverability import VerifyEmail, VerifyEmailAtSignup
from referral.core.policies.lookup_invalidation import InvalidateLookup, RetryLookupInvalidation
from referral.core.use_cases.accounts import (
    AccountUpdate,
    BlockAccount,
    NewAccount,
    Register,
    UpdateAccount,
)
from referral.core.use_cases.codes import DeactivateCode, IssueCode, NewCode
from referral.core.use_cases.email_links import SendConfirmationMail, SendPasswordResetMail
from referral.core.use_cases.enrichment import EnrichProfile
from referral.core.use_cases.job_dispatch import DispatchJob
from referral.core.use_cases.notifications import (
    MAX_LISTED_EMAILS,
    MailLimit,
    RequestCodeMail,
    SendCodeMail,
    SendWelcomeMail,
    Unsubscribe,
)
from referral.core.use_cases.notifications import NotifyReferrer as Tell
from referral.core.use_cases.retention import ExpireUnconfirmed, Prune
from tests.support.fakes.database import FakeDatabase, FakeMailReservations
from tests.support.fakes.mail import FakeLinks, FakeMailer, FakeUnsubscribeTokens
from tests.support.fakes.ports import (
    FakeClock,
    FakeCodeGenerator,
    FakeEmailParser,
    FakeFingerprinter,
    FakeIdGenerator,
    FakeLookupCache,
    FakePasswordHasher,
    FakeTokenGenerator,
)

HOUR = timedelta(hours=1)


@dataclass
class MailService:
    """Everything that mail has to do with, and a worker that is told when to work."""

    limit: MailLimit = field(default_factory=lambda: MailLimit(5, HOUR))
    clock: FakeClock = field(default_factory=FakeClock)
    database: FakeDatabase = field(default_factory=FakeDatabase)
    id_generator: FakeIdGenerator = field(default_factory=FakeIdGenerator)
    mailer: FakeMailer = field(default_factory=FakeMailer)
    token_generator: FakeTokenGenerator = field(default_factory=FakeTokenGenerator)
    verification: EmailConfirmationPolicy = field(
        default_factory=lambda: EmailConfirmationPolicy(required=False)
    )

    async def create_account(
        self, email: str, code: str | None = None, locale: Locale = Locale.EN
    ) -> User:
        """Register someone."""
        addresses, passwords = FakeEmailParser(), FakePasswordHasher()
        credit = CreditReferrer(
            self.clock, FakeFingerprinter(), self.id_generator, self.verification
        )
        screen = VerifyEmailAtSignup(self.clock, self.database, FakeFingerprinter(), None)
        rest = (
            credit,
            self.database,
            None,
            self.id_generator,
            passwords,
            screen,
            self.verification,
        )
        clear = InvalidateLookup(FakeLookupCache(), self.database)
        register = Register(addresses, clear, self.clock, (), *rest)
        return await register(NewAccount(email, "correct horse", code, locale))

    async def create_code(self, user: User, **fields: object) -> Code:
        """Give someone a code for an hour."""
        issue = IssueCode(
            InvalidateLookup(FakeLookupCache(), self.database),
            self.clock,
            FakeCodeGenerator(),
            self.database,
            self.id_generator,
        )
        return await issue(user.id, NewCode(Expiry(lifetime_minutes=60), **fields))  # type: ignore[arg-type]

    async def mail_active_code(self, user: User) -> None:
        """Ask for the active code by mail."""
        await RequestCodeMail(self.clock, self.database, self.id_generator, self.limit)(user.id)

    async def jobs(self) -> list[Job]:
        """Return all that was queued so far."""
        async with self.database.read() as repositories:
            return list(repositories.tables.jobs.values())

    async def run_job(self, job: Job, number: int = 1, attempt: int = 0) -> None:
        """Do one job."""
        links, tokens = FakeLinks(), FakeUnsubscribeTokens()
        clear, settle = (
            InvalidateLookup(FakeLookupCache(), self.database),
            ResolveReferral(self.clock),
        )
        remove = RemoveAccount(self.clock, FakeFingerprinter(), settle)
        deadlines = (clear, self.clock, self.database, remove, settle, self.verification)
        rest = (self.clock, self.limit, links, self.mailer, FakeMailReservations(self.database))
        do_job = DispatchJob(
            RetryLookupInvalidation(FakeLookupCache(), self.database),
            EnrichProfile(self.clock, self.database, None, self.verification),
            ExpireUnconfirmed(*deadlines),
            Prune(self.clock, self.database),
            SendCodeMail(self.clock, self.database, links, self.mailer),
            SendConfirmationMail(*rest, self.token_generator),
            SendPasswordResetMail(
                self.clock, self.database, links, self.mailer, self.token_generator
            ),
            SendWelcomeMail(*rest),
            Tell(self.clock, self.database, self.limit, links, self.mailer, tokens),
            VerifyEmail(self.clock, self.database, FakeFingerprinter(), None),
        )
        await do_job(job, JobContext(UUID(int=number), attempt))

    async def run_all_jobs(self) -> None:
        """Do every job once, leaving aside those that have to wait."""
        for number, job in enumerate(await self.jobs()):
            try:
                await self.run_job(job, number)
            except RescheduleJob:
                continue


@pytest.fixture
def service() -> MailService:
    """An service where nobody has joined."""
    return MailService()


async def test_registration_queues_mails_to_the_user_and_the_referrer(
    service: MailService,
) -> None:
    """Both jobs are committed with the account and hold ids."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    bob = await service.create_account("bob@example.com", "ANN")
    jobs = await service.jobs()
    assert jobs[:2] == [WelcomeMailJob(ann.id), WelcomeMailJob(bob.id)]
    assert isinstance(jobs[2], ReferralMailJob)


async def test_rejected_registration_queues_nothing(service: MailService) -> None:
    """Without an account there is no job."""
    with pytest.raises(ReferralCodeUnusable):
        await service.create_account("bob@example.com", "NOBODYS")
    assert await service.jobs() == []


async def test_mails_go_to_their_recipients_in_their_locale(service: MailService) -> None:
    """The new user is welcomed, and the referrer is notified."""
    ann = await service.create_account("Ann@example.com", locale=Locale.RU)
    await service.create_code(ann, text="ANN")
    await service.create_account("bob@example.com", "ANN")
    await service.run_all_jobs()
    sent = [(mail.template, mail.to, mail.locale) for mail in service.mailer.sent]
    assert sent == [
        ("welcome", "Ann@example.com", "ru"),
        ("welcome", "bob@example.com", "en"),
        ("referral", "Ann@example.com", "ru"),
    ]
    assert service.mailer.sent[2].variables["emails"] == ["bob@example.com"]
    assert service.mailer.sent[2].unsubscribe_url == f"http://test/unsubscribe/mute-{ann.id}"


async def test_unsubscribed_referrer_is_never_notified_of_that_referral(
    service: MailService,
) -> None:
    """Referrals from the unsubscribed period stay unreported after subscribing again."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    await Unsubscribe(service.database, FakeUnsubscribeTokens())(f"mute-{ann.id}")
    await service.create_account("bob@example.com", "ANN")
    await service.run_all_jobs()
    await UpdateAccount(service.database)(ann.id, AccountUpdate(None, notify_on_referral=True))
    await service.create_account("cid@example.com", "ANN")
    *_, last = await service.jobs()
    await service.run_job(last, 99, attempt=1)
    news = [mail.variables["emails"] for mail in service.mailer.sent if mail.template == "referral"]
    assert news == [["cid@example.com"]]


async def test_blocked_user_gets_no_mail(service: MailService) -> None:
    """Neither a queued welcome mail nor a notification of a referral."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    await service.create_account("bob@example.com", "ANN")
    clear = InvalidateLookup(FakeLookupCache(), service.database)
    await BlockAccount(FakeEmailParser(), clear, service.clock, service.database)(ann.email)
    await service.run_all_jobs()
    assert {mail.to for mail in service.mailer.sent} == {"bob@example.com"}


async def test_unsubscribing_rejects_an_invalid_token(service: MailService) -> None:
    """Neither garbage nor an unknown id is accepted."""
    for token in ("garbage", f"mute-{UUID(int=1)}"):
        with pytest.raises(NotFound):
            await Unsubscribe(service.database, FakeUnsubscribeTokens())(token)


async def test_active_code_is_mailed_to_its_owner(service: MailService) -> None:
    """With its link, its QR code and the uses left."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, text="ANN", max_uses=3)
    await service.mail_active_code(ann)
    await service.run_all_jobs()
    mail = service.mailer.sent[-1]
    facts = {"code": "ANN", "expires_at": code.expires_at, "link": "http://test/r/ANN", "left": 3}
    assert (mail.template, mail.variables, mail.qr_url) == ("code", facts, "http://test/r/ANN")


async def test_code_mail_needs_an_active_code(service: MailService) -> None:
    """The request is rejected; a code that is deactivated before the mail is sent is not mailed."""
    ann = await service.create_account("ann@example.com")
    with pytest.raises(NoActiveCode):
        await service.mail_active_code(ann)
    code = await service.create_code(ann)
    await service.mail_active_code(ann)
    clear = InvalidateLookup(FakeLookupCache(), service.database)
    await DeactivateCode(clear, service.clock, service.database)(ann.id, code.id)
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
        await service.create_account(f"u{number}@example.com", "ANN")
    await service.run_all_jobs()
    assert len([mail for mail in service.mailer.sent if mail.to == "ann@example.com"]) == 4
    await service.mail_active_code(ann)
    with pytest.raises(TooManyRequests):
        await service.mail_active_code(ann)


async def test_delayed_referrals_share_the_next_mail(service: MailService) -> None:
    """Each referral is reported once, by the first job that gets a slot."""
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(6):
        await service.create_account(f"u{number}@example.com", "ANN")
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
    """The mail lists the first e-mail addresses and counts the rest."""
    service.limit = MailLimit(1, HOUR)
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(MAX_LISTED_EMAILS + 2):
        await service.create_account(f"u{number}@example.com", "ANN")
    last = (await service.jobs())[-1]
    await service.run_job(last, attempt=1)
    facts = service.mailer.sent[0].variables
    assert (len(list(facts["emails"])), facts["more"]) == (MAX_LISTED_EMAILS, 2)  # type: ignore[call-overload]


async def test_retried_mail_keeps_its_id_and_slot(service: MailService) -> None:
    """A retry takes no second slot of the quota."""
    service.limit = MailLimit(1, HOUR)
    ann = await service.create_account("ann@example.com")
    service.mailer.error = Unavailable()
    with pytest.raises(Unavailable):
        await service.run_job(WelcomeMailJob(ann.id), 7)
    service.mailer.error = None
    await service.run_job(WelcomeMailJob(ann.id), 7, attempt=1)
    assert [mail.id for mail in service.mailer.sent] == [UUID(int=7)]


async def test_without_a_limit_every_referral_is_mailed(service: MailService) -> None:
    """Each new referral has its own mail."""
    service.limit = MailLimit(None, HOUR)
    ann = await service.create_account("ann@example.com")
    await service.create_code(ann, text="ANN")
    for number in range(9):
        await service.create_account(f"u{number}@example.com", "ANN")
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
        assert list(repositories.tables.mails) == [UUID(int=2)]
