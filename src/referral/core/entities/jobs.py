"""The work that is done after a commit. A job holds ids: what it is about is read when it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

FIRST_WAIT = timedelta(seconds=5)
"""When a third party is asked again that did not answer a moment ago."""


@dataclass(frozen=True, slots=True)
class WelcomeMail:
    """Greet a new user."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class ReferralMail:
    """Tell a referrer who joined."""

    referral_id: UUID


@dataclass(frozen=True, slots=True)
class CodeMail:
    """Mail a code to its owner, who asked for it."""

    user_id: UUID
    code_id: UUID


@dataclass(frozen=True, slots=True)
class ConfirmationMail:
    """Mail the link that confirms an address; `counted` when the limit allowed it already."""

    user_id: UUID
    counted: bool = False


@dataclass(frozen=True, slots=True)
class ResetMail:
    """Mail the link that sets a new password; the id may be nobody's."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class Verifying:
    """Ask again whether mail to a user arrives."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class Enriching:
    """Ask what is known about a user."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class Clearing:
    """Have look-ups forget a user's address."""

    user_id: UUID


@dataclass(frozen=True, slots=True)
class Pruning:
    """Delete what is of no more use."""


Job = (
    WelcomeMail
    | ReferralMail
    | CodeMail
    | ConfirmationMail
    | ResetMail
    | Verifying
    | Enriching
    | Clearing
    | Pruning
)


@dataclass(frozen=True, slots=True)
class JobContext:
    """One attempt at a job: `id` is the job's and stays the same, `attempt` counts from nought.

    `counters` has how often each counter of `Later` went up in the attempts before.
    """

    id: UUID
    attempt: int
    counters: Mapping[str, int] = field(default_factory=dict)


def delay_of(job: Job) -> timedelta:
    """Return how long after the commit a job is due."""
    return FIRST_WAIT if isinstance(job, Verifying) else timedelta()
