"""Asking third parties again, less and less often."""

from datetime import timedelta

from referral.core.errors import Later
from referral.core.jobs import FIRST_WAIT, Run

PATIENCE = timedelta(seconds=10)
"""How long a job waits for an answer."""

UNANSWERED = 20
"""How often a job asks a service that does not answer: for two to three days."""

UNDECIDED = 5
"""How often, when it does and says nothing: that may cost as much as any answer."""

GROWTH = 3
LONGEST_WAIT = timedelta(hours=6)
JITTER = 1000


def ask_again(run: Run, most: int) -> None:
    """Raise `Later`; return when the job has asked often enough and may let the matter rest."""
    if run.attempt < most:
        longest = min(FIRST_WAIT * int(GROWTH ** min(run.attempt, 20)), LONGEST_WAIT)
        raise Later(longest * (0.5 + run.id.int % JITTER / JITTER / 2))
