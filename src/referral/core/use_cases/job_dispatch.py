"""Dispatch of jobs to use cases."""

from dataclasses import dataclass

from referral.core.entities.jobs import (
    CodeMailJob,
    ConfirmationMailJob,
    DeleteDeliveriesJob,
    DeliverWebhookJob,
    EnrichProfileJob,
    FailPendingDeliveriesJob,
    InvalidateLookupJob,
    Job,
    JobContext,
    PasswordResetMailJob,
    PruneJob,
    ReferralMailJob,
    ReplayEventsJob,
    VerifyEmailJob,
    WelcomeMailJob,
)
from referral.core.policies.email_deliverability import VerifyEmail
from referral.core.policies.lookup_invalidation import RetryLookupInvalidation
from referral.core.use_cases.enrichment import EnrichProfile
from referral.core.use_cases.notifications import (
    NotifyReferrer,
    SendCodeMail,
    SendConfirmationMail,
    SendPasswordResetMail,
    SendWelcomeMail,
)
from referral.core.use_cases.retention import ExpireUnconfirmed, Prune
from referral.core.use_cases.secret_reencryption import ReencryptSecrets
from referral.core.use_cases.webhook_deliveries import (
    CreateReplayDeliveries,
    DeleteDeliveries,
    FailPendingDeliveries,
)
from referral.core.use_cases.webhook_sending import DeliverWebhook


@dataclass(frozen=True, slots=True)
class DispatchJob:
    """Run a job with the use case for its type."""

    retry_lookup_invalidation: RetryLookupInvalidation
    enrich_profile: EnrichProfile
    expire_unconfirmed: ExpireUnconfirmed
    prune: Prune
    send_code_mail: SendCodeMail
    send_confirmation_mail: SendConfirmationMail
    send_password_reset_mail: SendPasswordResetMail
    send_welcome_mail: SendWelcomeMail
    notify_referrer: NotifyReferrer
    verify_email: VerifyEmail
    fail_pending_deliveries: FailPendingDeliveries
    delete_deliveries: DeleteDeliveries
    create_replay_deliveries: CreateReplayDeliveries
    reencrypt_secrets: ReencryptSecrets
    deliver_webhook: DeliverWebhook

    async def __call__(self, job: Job, context: JobContext) -> None:
        """Run the job; errors are those of `JobHandler`."""
        match job:
            case WelcomeMailJob():
                await self.send_welcome_mail(job, context)
            case ReferralMailJob():
                await self.notify_referrer(job, context)
            case CodeMailJob():
                await self.send_code_mail(job, context)
            case ConfirmationMailJob():
                await self.send_confirmation_mail(job, context)
            case PasswordResetMailJob():
                await self.send_password_reset_mail(job, context)
            case VerifyEmailJob():
                await self.verify_email(job, context)
            case EnrichProfileJob():
                await self.enrich_profile(job, context)
            case _:
                await self._run_without_context(job)

    async def _run_without_context(
        self,
        job: InvalidateLookupJob
        | PruneJob
        | FailPendingDeliveriesJob
        | DeleteDeliveriesJob
        | ReplayEventsJob
        | DeliverWebhookJob,
    ) -> None:
        match job:
            case InvalidateLookupJob():
                await self.retry_lookup_invalidation(job)
            case PruneJob():
                await self.expire_unconfirmed()
                await self.prune()
                await self.reencrypt_secrets()
            case FailPendingDeliveriesJob():
                await self.fail_pending_deliveries(job)
            case DeleteDeliveriesJob():
                await self.delete_deliveries(job)
            case ReplayEventsJob():
                await self.create_replay_deliveries(job)
            case DeliverWebhookJob():
                await self.deliver_webhook(job)
