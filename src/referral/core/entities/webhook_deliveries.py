"""Deliveries of events to webhooks: their attempts, and the schedule of retries."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

RETRY_DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The delays after each failed attempt of the schedule; after the last one the delivery fails."""

RETRY_JITTER = 0.2
"""The largest deviation from a delay, as a fraction of it."""

MAX_RETRY_AFTER = timedelta(days=1)
"""The longest `Retry-After` of a receiver that is respected."""

DISABLED_ERROR = "The webhook was disabled."
"""The error of a delivery that failed because its webhook was disabled."""

MAX_RESPONSE_BODY_CHARACTERS = 1024
"""How much of the response to a failed attempt is stored."""


class DeliveryStatus(StrEnum):
    """The status of a delivery."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """The outcome of one attempt.

    `retry_requested_at` is that of the delivery when the attempt began; it is None for an attempt
    of the schedule. `response_status` is None without a response, and `error` is set unless the
    attempt succeeded. `retry_after` is the header's delay of a response 429 or 503.
    """

    delivery_id: UUID
    url: str
    ended_at: datetime
    retry_requested_at: datetime | None
    response_status: int | None
    error: str | None
    response_body: str | None = None
    retry_after: timedelta | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the receiver accepted the event."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one webhook; `occurred_at` is the time of the event.

    `attempts` counts all attempts, `scheduled_failures` the failed ones of the schedule.
    `scheduled_for` is the time of the schedule's next attempt, None unless the status is pending.
    `retry_requested_at` is set while a retry that was requested by hand is due. `response_status`,
    `response_body` and `error` are those of the last attempt; `error` begins with `DISABLED_ERROR`
    if the delivery failed because of that.
    """

    id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    occurred_at: datetime
    created_at: datetime
    scheduled_for: datetime | None
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    scheduled_failures: int = 0
    retry_requested_at: datetime | None = None
    response_status: int | None = None
    response_body: str | None = None
    error: str | None = None

    @property
    def next_attempt_at(self) -> datetime | None:
        """The time of the next attempt, by the schedule or by hand; None if there is none."""
        times = [time for time in (self.scheduled_for, self.retry_requested_at) if time]
        return min(times, default=None)

    def after(self, attempt: DeliveryAttempt, jitter: float) -> "Delivery":
        """Return the delivery after an attempt; `jitter` is a random number from -1 to 1.

        Only an attempt of the schedule moves the schedule, and only success ends it early. A retry
        that was requested while the attempt was running stays due.
        """
        is_same_request = self.retry_requested_at == attempt.retry_requested_at
        is_scheduled = attempt.retry_requested_at is None
        schedule: dict[str, Any] = {}
        if attempt.succeeded:
            schedule = {"status": DeliveryStatus.SUCCEEDED, "scheduled_for": None}
        elif self.status is DeliveryStatus.PENDING and is_scheduled:
            schedule = self._reschedule(attempt, jitter)
        return replace(
            self,
            attempts=self.attempts + 1,
            retry_requested_at=None if is_same_request else self.retry_requested_at,
            response_status=attempt.response_status,
            response_body=attempt.response_body and _truncate(attempt.response_body),
            error=attempt.error,
            **schedule,
        )

    def _reschedule(self, attempt: DeliveryAttempt, jitter: float) -> dict[str, Any]:
        """Return the changes of a pending delivery by a failed attempt of the schedule."""
        failures = self.scheduled_failures + 1
        if failures > len(RETRY_DELAYS):
            status, scheduled_for = DeliveryStatus.FAILED, None
        else:
            delay = RETRY_DELAYS[failures - 1] * (1 + RETRY_JITTER * jitter)
            if attempt.retry_after is not None:
                delay = min(attempt.retry_after, MAX_RETRY_AFTER)
            status, scheduled_for = DeliveryStatus.PENDING, attempt.ended_at + delay
        return {"scheduled_failures": failures, "status": status, "scheduled_for": scheduled_for}


@dataclass(frozen=True, slots=True)
class Replay:
    """A request to deliver the events of `since <= occurred_at < until` to a webhook again.

    `after_occurred_at` and `after_event_id` are those of the last event that has its delivery.
    """

    id: UUID
    webhook_id: UUID
    event_types: tuple[str, ...]
    since: datetime
    until: datetime
    after_occurred_at: datetime | None = None
    after_event_id: UUID | None = None


def _truncate(body: str) -> str:
    return body.replace("\0", "")[:MAX_RESPONSE_BODY_CHARACTERS]
