"""Background jobs, enqueued in a transaction. They contain ids only and read the rest at run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

FIRST_RETRY_DELAY = timedelta(seconds=5)
"""The delay before the first retry of a request to a third party."""


@dataclass(frozen=True, slots=True)
class WelcomeMailJob:
    """Welcome a new user."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class ReferralMailJob:
    """Notify a referrer of a new referral."""

    referral_id: UUID


@dataclass(frozen=True, slots=True)
class CodeMailJob:
    """Mail a code to its owner, who requested it."""

    user_id: UUID
    code_id: UUID


@dataclass(frozen=True, slots=True)
class ConfirmationMailJob:
    """Mail the link that confirms an e-mail address.

    `counted` is true if the mail has been counted against the mail quota already.
    """

    user_id: UUID
    counted: bool = False


@dataclass(frozen=True, slots=True)
class PasswordResetMailJob:
    """Mail the link that sets a new password; `user_id` may be unknown."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class VerifyEmailJob:
    """Retry the third-party verification of a user's e-mail address."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class EnrichProfileJob:
    """Fetch a user's public profile from a third party."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class InvalidateLookupJob:
    """Retry the invalidation of a user's cached lookup."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class PruneJob:
    """Expire unconfirmed accounts and referrals, and delete old rows."""


@dataclass(frozen=True, slots=True)
class FailPendingDeliveriesJob:
    """Fail the remaining pending deliveries of a disabled webhook."""

    webhook_id: UUID


@dataclass(frozen=True, slots=True)
class DeleteDeliveriesJob:
    """Delete the remaining deliveries of a deleted webhook."""

    webhook_id: UUID


@dataclass(frozen=True, slots=True)
class ReplayEventsJob:
    """Create the deliveries of a replay."""

    replay_id: UUID


@dataclass(frozen=True, slots=True)
class DeliverWebhookJob:
    """Send the due deliveries of a webhook. At most one such job runs for a webhook."""

    webhook_id: UUID


Job = (
    WelcomeMailJob
    | ReferralMailJob
    | CodeMailJob
    | ConfirmationMailJob
    | PasswordResetMailJob
    | VerifyEmailJob
    | EnrichProfileJob
    | InvalidateLookupJob
    | PruneJob
    | FailPendingDeliveriesJob
    | DeleteDeliveriesJob
    | ReplayEventsJob
    | DeliverWebhookJob
)


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt of a job: `id` is the same for all attempts, `attempt` counts from 0.

    `counters` contains how often earlier attempts raised `RescheduleJob`, by its `counter`.
    """

    id: UUID
    attempt: int
    counters: Mapping[str, int] = field(default_factory=dict)


def initial_delay(job: Job) -> timedelta:
    """Return the delay between the commit and the first attempt of a job."""
    return FIRST_RETRY_DELAY if isinstance(job, VerifyEmailJob) else timedelta()
