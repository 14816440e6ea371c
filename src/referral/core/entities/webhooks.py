"""Webhooks: receivers of events, and their rules. Deliveries are in `webhook_deliveries`."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from referral.core.entities.event_patterns import is_selected
from referral.core.entities.webhook_deliveries import DeliveryAttempt
from referral.core.errors import InvalidRequest

MAX_DESCRIPTION_CHARACTERS = 500

PREVIOUS_SECRET_LIFETIME = timedelta(hours=24)
"""How long deliveries carry the signature of the previous secret too."""

FAILING_PERIOD = timedelta(days=5)
"""A webhook whose attempts have all failed for this long is disabled."""

HTTP_GONE = 410


class DisabledReason(StrEnum):
    """Why the service disabled a webhook."""

    GONE = "gone"
    FAILING = "failing"
    UNREADABLE_SECRET = "unreadable_secret"  # noqa: S105 - not a secret


MAX_WEBHOOKS = 50
"""How many webhooks exist at most, enabled or not.

A worker sends to 128 at once: as long as there are fewer, receivers that do not respond hold up no
other one.
"""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events.

    `secret` and `previous_secret` are encrypted. `failing_since` is the time of the first failed
    attempt since the last success. `disabled_reason` is None if an operator or client disabled it.
    """

    id: UUID
    url: str
    events: tuple[str, ...]
    description: str | None
    enabled: bool
    disabled_reason: DisabledReason | None
    created_at: datetime
    secret: bytes
    previous_secret: bytes | None = None
    previous_secret_until: datetime | None = None
    failing_since: datetime | None = None
    succeeded_attempts: int = 0
    failed_attempts: int = 0

    def subscribes_to(self, event_type: str) -> bool:
        """Return whether one of the patterns matches a type of event."""
        return is_selected(event_type, self.events)

    def signing_secrets(self, now: datetime) -> tuple[bytes, ...]:
        """Return the encrypted secrets that sign a delivery at `now`, the newest first."""
        until = self.previous_secret_until
        if self.previous_secret is None or until is None or until <= now:
            return (self.secret,)
        return self.secret, self.previous_secret

    def rotated(self, secret: bytes, now: datetime) -> "Webhook":
        """Return the webhook with a new encrypted secret; the current one stays valid for a day."""
        until = now + PREVIOUS_SECRET_LIFETIME
        return replace(
            self, secret=secret, previous_secret=self.secret, previous_secret_until=until
        )

    def with_url(self, url: str) -> "Webhook":
        """Return the webhook with another receiver, which has not failed yet."""
        return replace(self, url=url, failing_since=None)

    def as_enabled(self) -> "Webhook":
        """Return the webhook enabled. If it was disabled, its failures are forgotten."""
        if self.enabled:
            return self
        return replace(self, enabled=True, disabled_reason=None, failing_since=None)

    def as_disabled(self, reason: DisabledReason | None = None) -> "Webhook":
        """Return the webhook disabled; one that is disabled already keeps its reason."""
        return replace(self, enabled=False, disabled_reason=reason) if self.enabled else self

    def after(self, attempts: Iterable[DeliveryAttempt]) -> "Webhook":
        """Return the webhook after some attempts, disabled if they require it.

        Attempts at an earlier URL of the webhook do not count.
        """
        webhook = self
        for attempt in sorted(attempts, key=lambda attempt: attempt.ended_at):
            if webhook.enabled and attempt.url == webhook.url:
                webhook = webhook._after_attempt(attempt)
        return webhook

    def counting(self, attempts: Collection[DeliveryAttempt]) -> "Webhook":
        """Return the webhook with some attempts more."""
        succeeded = sum(attempt.succeeded for attempt in attempts)
        return replace(
            self,
            succeeded_attempts=self.succeeded_attempts + succeeded,
            failed_attempts=self.failed_attempts + len(attempts) - succeeded,
        )

    def _after_attempt(self, attempt: DeliveryAttempt) -> "Webhook":
        if attempt.succeeded:
            return replace(self, failing_since=None) if self.failing_since else self
        failing_since = self.failing_since or attempt.ended_at
        webhook = replace(self, failing_since=failing_since)
        if attempt.response_status == HTTP_GONE:
            return webhook.as_disabled(DisabledReason.GONE)
        if attempt.ended_at - failing_since >= FAILING_PERIOD:
            return webhook.as_disabled(DisabledReason.FAILING)
        return webhook


def check_description(description: str | None) -> str | None:
    """Return the description, or raise `InvalidRequest`."""
    if description is None:
        return None
    has_control_character = any(ord(each) < ord(" ") or each == "\x7f" for each in description)
    if len(description) > MAX_DESCRIPTION_CHARACTERS or has_control_character:
        detail = f"Send at most {MAX_DESCRIPTION_CHARACTERS} characters without line ends."
        raise InvalidRequest(detail, field="description")
    return description
