"""Asking third parties again, less and less often."""

from datetime import timedelta
from enum import StrEnum

from referral.core.entities.jobs import FIRST_RETRY_DELAY, JobContext
from referral.core.errors import RescheduleJob

THIRD_PARTY_TIMEOUT = timedelta(seconds=10)
"""How long a job waits for an answer."""


class ThirdPartyFailure(StrEnum):
    """Why a third party has to be asked again."""

    NO_RESPONSE = "unanswered"
    INCONCLUSIVE = "undecided"


MAX_THIRD_PARTY_RETRIES = {ThirdPartyFailure.NO_RESPONSE: 18, ThirdPartyFailure.INCONCLUSIVE: 7}
"""A service that does not answer is asked again for some two days; one that does and says
nothing less often, since that may cost as much as any answer.
"""

BACKOFF_FACTOR = 4
MAX_RETRY_DELAY = timedelta(hours=6)
JITTER_STEPS = 1000


def schedule_retry(context: JobContext, failure: ThirdPartyFailure) -> None:
    """Raise `RescheduleJob`; return when the job has used up its retries.

    Other attempts of the job, which never asked or whose answer could not be stored, do not count.
    """
    if context.counters.get(failure, 0) < MAX_THIRD_PARTY_RETRIES[failure]:
        retries = sum(context.counters.get(each, 0) for each in ThirdPartyFailure)
        max_delay = min(
            FIRST_RETRY_DELAY * int(BACKOFF_FACTOR ** min(retries, 20)), MAX_RETRY_DELAY
        )
        raise RescheduleJob(
            max_delay * (0.5 + context.id.int % JITTER_STEPS / JITTER_STEPS / 2), failure
        )
