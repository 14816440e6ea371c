"""Retries of requests to third parties, with exponential backoff."""

from datetime import timedelta
from enum import StrEnum

from referral.core.entities.jobs import FIRST_RETRY_DELAY, JobContext
from referral.core.errors import RescheduleJob

THIRD_PARTY_TIMEOUT = timedelta(seconds=10)
"""How long a job waits for a response."""


class ThirdPartyFailure(StrEnum):
    """Reasons for a retry; the values are the names of job counters."""

    NO_RESPONSE = "unanswered"
    INCONCLUSIVE = "undecided"


MAX_THIRD_PARTY_RETRIES = {ThirdPartyFailure.NO_RESPONSE: 18, ThirdPartyFailure.INCONCLUSIVE: 7}
"""Without a response, retries span about two days. Inconclusive responses are retried less often,
since they may be billed.
"""

BACKOFF_FACTOR = 4
MAX_BACKOFF_EXPONENT = 20
"""Above 21 the product would exceed the range of a timedelta."""

MAX_RETRY_DELAY = timedelta(hours=6)
JITTER_STEPS = 1000


def schedule_retry(context: JobContext, failure: ThirdPartyFailure) -> None:
    """Raise `RescheduleJob`, or return if the job has no retries left.

    Only attempts that ended here count, not those that failed before the request or while storing
    its result.
    """
    retries = {each: context.counters.get(each, 0) for each in ThirdPartyFailure}
    if retries[failure] < MAX_THIRD_PARTY_RETRIES[failure]:
        exponent = min(sum(retries.values()), MAX_BACKOFF_EXPONENT)
        max_delay = min(FIRST_RETRY_DELAY * BACKOFF_FACTOR**exponent, MAX_RETRY_DELAY)
        # A delay of 50 to 100 %, so that jobs do not retry at the same time.
        jitter = 0.5 + context.id.int % JITTER_STEPS / JITTER_STEPS / 2
        raise RescheduleJob(max_delay * jitter, failure)
