"""Which use case does which job."""

from dataclasses import dataclass

from referral.core.entities.jobs import (
    Clearing,
    CodeMail,
    ConfirmationMail,
    Enriching,
    Job,
    JobContext,
    Pruning,
    ReferralMail,
    ResetMail,
    Verifying,
    WelcomeMail,
)
from referral.core.policies.email_deliverability import Verify
from referral.core.policies.lookup_invalidation import InvalidateLookupLater
from referral.core.use_cases.email_links import SendConfirmation, SendReset
from referral.core.use_cases.enrichment import Enrich
from referral.core.use_cases.notifications import SendCode, SendWelcome, TellReferrer
from referral.core.use_cases.retention import ExpireUnconfirmed, Prune


@dataclass(frozen=True, slots=True)
class DispatchJob:
    """Do a job of any kind."""

    clear_later: InvalidateLookupLater
    enrich: Enrich
    expire_unconfirmed: ExpireUnconfirmed
    prune: Prune
    send_code: SendCode
    send_confirmation: SendConfirmation
    send_reset: SendReset
    send_welcome: SendWelcome
    tell_referrer: TellReferrer
    verify: Verify

    async def __call__(self, job: Job, run: JobContext) -> None:
        """Do it; raises `Later` or `MailRefused`, and anything else may be tried again."""
        match job:
            case WelcomeMail():
                await self.send_welcome(job, run)
            case ReferralMail():
                await self.tell_referrer(job, run)
            case CodeMail():
                await self.send_code(job, run)
            case ConfirmationMail():
                await self.send_confirmation(job, run)
            case ResetMail():
                await self.send_reset(job, run)
            case Verifying():
                await self.verify(job, run)
            case Enriching():
                await self.enrich(job, run)
            case Clearing():
                await self.clear_later(job)
            case Pruning():
                await self.expire_unconfirmed()
                await self.prune()
