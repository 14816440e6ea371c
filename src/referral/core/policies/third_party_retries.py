"""Asking third parties again, less and less often."""

from datetime import timedelta
from enum import StrEnum

from referral.core.entities.jobs import FIRST_WAIT, JobContext
from referral.core.errors import RescheduleJob

RESPONSE_TIMEOUT = timedelta(seconds=10)
"""How long a job waits for an answer."""


class Fault(StrEnum):
    """Why a third party has to be asked again."""

    UNANSWERED = "unanswered"
    UNDECIDED = "undecided"


MAX_RETRIES = {Fault.UNANSWERED: 18, Fault.UNDECIDED: 7}
"""A service that does not answer is asked again for some two days; one that does and says
nothing less often, since that may cost as much as any answer.
"""

BACKOFF_FACTOR = 4
LONGEST_WAIT = timedelta(hours=6)
JITTER = 1000


def ask_again(run: JobContext, fault: Fault) -> None:
    """Raise `RescheduleJob`; return when the job has used up its retries.

    Other attempts of the job, which never asked or whose answer could not be stored, do not count.
    """
    if run.counters.get(fault, 0) < MAX_RETRIES[fault]:
        asked = sum(run.counters.get(each, 0) for each in Fault)
        longest = min(FIRST_WAIT * int(BACKOFF_FACTOR ** min(asked, 20)), LONGEST_WAIT)
        raise RescheduleJob(longest * (0.5 + run.id.int % JITTER / JITTER / 2), fault)
