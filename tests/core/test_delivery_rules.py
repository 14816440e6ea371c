"""Rules of deliveries: the schedule of retries, `Retry-After`, and retries by hand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.webhook_deliveries import (
    RETRY_DELAYS,
    Delivery,
    DeliveryAttempt,
    DeliveryStatus,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
MINUTES_OF_SCHEDULE = (5 / 60, 5, 30, 120, 300, 600, 840, 1200, 1440)


def make_delivery(**changed: Any) -> Delivery:
    """Return a delivery that is due."""
    one, two, three = (UUID(int=number) for number in (1, 2, 3))
    return replace(Delivery(one, two, three, "code.created", NOW, NOW, NOW), **changed)


def failure(**changed: Any) -> DeliveryAttempt:
    """Return a failed attempt of the schedule."""
    attempt = DeliveryAttempt(UUID(int=1), "https://shop.example/", NOW, None, 500, "HTTP 500")
    return replace(attempt, **changed)


def success(**changed: Any) -> DeliveryAttempt:
    """Return a successful attempt of the schedule."""
    return failure(response_status=204, error=None, **changed)


def test_delivery_is_attempted_ten_times() -> None:
    """After the delays of the schedule; then it fails."""
    delivery, delays = make_delivery(), []
    for _ in range(9):
        delivery = delivery.after(failure(), 0)
        assert delivery.status is DeliveryStatus.PENDING
        assert delivery.scheduled_for is not None
        delays.append((delivery.scheduled_for - NOW) / timedelta(minutes=1))
    assert delays == list(MINUTES_OF_SCHEDULE)
    delivery = delivery.after(failure(), 0)
    assert (delivery.status, delivery.next_attempt_at) == (DeliveryStatus.FAILED, None)
    assert delivery.attempts == 10


@pytest.mark.parametrize(("jitter", "seconds"), [(-1, 4), (0, 5), (0.5, 5.5), (1, 6)])
def test_delays_vary_by_a_fifth(jitter: float, seconds: float) -> None:
    """Longer or shorter."""
    delivery = make_delivery().after(failure(), jitter)
    assert delivery.next_attempt_at == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        (timedelta(), timedelta()),
        (timedelta(seconds=90), timedelta(seconds=90)),
        (timedelta(days=1), timedelta(days=1)),
        (timedelta(days=999), timedelta(days=1)),
    ],
)
def test_retry_after_replaces_the_delay(retry_after: timedelta, delay: timedelta) -> None:
    """Up to a day; the attempt counts all the same."""
    delivery = make_delivery().after(failure(retry_after=retry_after), 1)
    assert delivery.next_attempt_at == NOW + delay
    assert delivery.scheduled_failures == 1
    last = make_delivery(scheduled_failures=len(RETRY_DELAYS))
    assert last.after(failure(retry_after=retry_after), 1).status is DeliveryStatus.FAILED


def test_success_ends_the_schedule() -> None:
    """What the last attempt answered is stored."""
    failed_once = make_delivery().after(failure(response_body="a\0b" + "c" * 2000), 0)
    assert failed_once.response_body == "ab" + "c" * 1022
    assert (failed_once.response_status, failed_once.error) == (500, "HTTP 500")
    delivered = failed_once.after(success(), 0)
    assert (delivered.status, delivered.next_attempt_at) == (DeliveryStatus.SUCCEEDED, None)
    assert (delivered.response_status, delivered.response_body) == (204, None)
    assert (delivered.attempts, delivered.error) == (2, None)


@pytest.mark.parametrize("status", list(DeliveryStatus))
def test_retry_by_hand_is_one_attempt_more(status: DeliveryStatus) -> None:
    """It is due at once, and its failure changes neither status nor schedule."""
    scheduled_for = LATER if status is DeliveryStatus.PENDING else None
    delivery = make_delivery(status=status, scheduled_for=scheduled_for, scheduled_failures=3)
    requested = replace(delivery, retry_requested_at=NOW)
    assert requested.next_attempt_at == NOW
    failed = requested.after(failure(retry_requested_at=NOW, retry_after=timedelta()), 0)
    result = replace(failed, attempts=0, response_status=None, error=None)
    assert (result, failed.attempts) == (delivery, 1)
    delivered = requested.after(success(retry_requested_at=NOW), 0)
    assert (delivered.status, delivered.next_attempt_at) == (DeliveryStatus.SUCCEEDED, None)


def test_retry_requested_during_an_attempt_stays_due() -> None:
    """Whether that attempt was one of the schedule or requested by hand too."""
    requested = make_delivery(retry_requested_at=LATER)
    for attempt in (failure(), success(), failure(retry_requested_at=NOW)):
        assert requested.after(attempt, 0).retry_requested_at == LATER


def test_outcome_after_the_schedule_has_ended_does_not_revive_it() -> None:
    """A webhook that was disabled meanwhile has failed its deliveries; success still counts."""
    ended = make_delivery(status=DeliveryStatus.FAILED, scheduled_for=None)
    failed = ended.after(failure(), 0)
    assert (failed.status, failed.next_attempt_at) == (DeliveryStatus.FAILED, None)
    assert ended.after(success(), 0).status is DeliveryStatus.SUCCEEDED
