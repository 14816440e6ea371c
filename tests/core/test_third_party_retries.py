"""Delays between requests to a third party that does not answer, or not conclusively."""

from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.jobs import (
    ConfirmationMailJob,
    JobContext,
    VerifyEmailJob,
    WelcomeMailJob,
    initial_delay,
)
from referral.core.errors import RescheduleJob
from referral.core.policies.third_party_retries import ThirdPartyFailure, schedule_retry

ID = UUID(int=0)


def delay_after(job_id: UUID, **counters: int) -> timedelta:
    """Return the delay after an attempt without a response."""
    with pytest.raises(RescheduleJob) as raised:
        schedule_retry(JobContext(job_id, 0, counters), ThirdPartyFailure.NO_RESPONSE)
    assert raised.value.counter == "unanswered"
    return raised.value.delay


def test_delays_grow_fourfold_up_to_six_hours() -> None:
    """From five seconds; a job waits at least half of that."""
    whole = [timedelta(seconds=seconds) for seconds in (5, 20, 80, 320, 1280, 5120, 20_480)]
    whole += [timedelta(hours=6)] * 2
    assert [delay_after(ID, unanswered=count) for count in range(9)] == [
        delay / 2 for delay in whole
    ]


def test_both_kinds_of_retries_add_to_the_delay() -> None:
    """However many there were; other counters have no effect."""
    assert delay_after(ID, unanswered=1, undecided=2, failures=9) == timedelta(seconds=160)
    assert delay_after(ID, unanswered=17, undecided=10**6) == timedelta(hours=3)


@pytest.mark.parametrize(
    ("number", "share"), [(0, 0.5), (1, 0.5005), (500, 0.75), (999, 0.9995), (1000, 0.5)]
)
def test_jobs_spread_their_retries_by_their_ids(number: int, share: float) -> None:
    """Over the second half of the delay, so that they do not retry at the same time."""
    job_id = UUID(int=7_000_000 + number)
    assert delay_after(job_id, unanswered=3) == timedelta(seconds=320) * share


@pytest.mark.parametrize(("failure", "retries"), [("unanswered", 18), ("undecided", 7)])
def test_retries_are_limited(failure: str, retries: int) -> None:
    """18 without a response; 7 without a result, as responses may be billed."""
    kind = ThirdPartyFailure(failure)
    with pytest.raises(RescheduleJob):
        schedule_retry(JobContext(ID, 0, {failure: retries - 1}), kind)
    schedule_retry(JobContext(ID, 0, {failure: retries}), kind)


def test_verification_is_retried_five_seconds_after_the_registration() -> None:
    """The registration has asked the third party already; mails wait for nothing."""
    assert initial_delay(VerifyEmailJob(ID)) == timedelta(seconds=5)
    assert initial_delay(WelcomeMailJob(ID)) == initial_delay(ConfirmationMailJob(ID))
    assert initial_delay(WelcomeMailJob(ID)) == timedelta()
