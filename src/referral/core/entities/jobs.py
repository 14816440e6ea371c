"""The work that is done after a commit. A job holds ids: what it is about is read when it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

FIRST_RETRY_DELAY = timedelta(seconds=5)
"""When a third party is asked again that did not answer a moment ago."""


@dataclass(frozen=True, slots=True)
class WelcomeMailJob:
    """Greet a new user."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class ReferralMailJob:
    """Tell a referrer who joined."""

    referral_id: UUID


@dataclass(frozen=True, slots=True)
class CodeMailJob:
    """Mail a code to its owner, who asked for it."""

    user_id: UUID
    code_id: UUID


@dataclass(frozen=True, slots=True)
class ConfirmationMailJob:
    """Mail the link that confirms an address; `counted` when the limit allowed it already."""

    user_id: UUID
    counted: bool = False


@dataclass(frozen=True, slots=True)
class PasswordResetMailJob:
    """Mail the link that sets a new password; the id may be nobody's."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class VerifyEmailJob:
    """Ask again whether mail to a user arrives."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class EnrichProfileJob:
    """Ask what is known about a user."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class InvalidateLookupJob:
    """Have look-ups forget a user's address."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class PruneJob:
    """Delete what is of no more use."""


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
)


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt at a job: `id` is the job's and stays the same, `attempt` counts from nought.

    `counters` has how often each counter of `Later` went up in the attempts before.
    """

    id: UUID
    attempt: int
    counters: Mapping[str, int] = field(default_factory=dict)


def initial_delay(job: Job) -> timedelta:
    """Return how long after the commit a job is due."""
    return FIRST_RETRY_DELAY if isinstance(job, VerifyEmailJob) else timedelta()
