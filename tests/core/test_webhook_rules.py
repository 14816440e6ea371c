"""Rules of webhooks: descriptions, secrets, and when a webhook is disabled."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.webhook_deliveries import DeliveryAttempt
from referral.core.entities.webhooks import (
    DisabledReason,
    Webhook,
    check_description,
)
from referral.core.errors import InvalidRequest

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)
URL = "https://shop.example/hook"


def make_webhook(**changed: Any) -> Webhook:
    """Return an enabled webhook for all events."""
    webhook = Webhook(UUID(int=1), URL, ("*",), None, True, None, NOW, b"new")  # noqa: FBT003
    return replace(webhook, **changed)


def attempt_at(ended_at: datetime, status: int | None = 500, **changed: Any) -> DeliveryAttempt:
    """Return the outcome of an attempt; any other status than 200 is an error."""
    error = None if status == 200 else "failed"
    attempt = DeliveryAttempt(UUID(int=2), URL, ended_at, None, status, error)
    return replace(attempt, **changed)


def test_description_is_one_line_of_any_text() -> None:
    """Of at most 500 characters."""
    for description in (None, "", "Лавка 👨‍👩‍👧", "a" * 500):
        assert check_description(description) == description
    for description in ("a" * 501, "a\nb", "\0", "\x7f"):
        with pytest.raises(InvalidRequest, match="Send at most 500"):
            check_description(description)


def test_two_newest_secrets_sign_for_a_day() -> None:
    """A rotation drops the secret before the previous one at once."""
    webhook = make_webhook()
    assert webhook.signing_secrets(NOW) == (b"new",)
    once = webhook.rotated(b"newer", NOW)
    assert once.signing_secrets(NOW + DAY - timedelta(seconds=1)) == (b"newer", b"new")
    assert once.signing_secrets(NOW + DAY) == (b"newer",)
    twice = once.rotated(b"newest", NOW + timedelta(hours=1))
    assert twice.signing_secrets(NOW + DAY) == (b"newest", b"newer")


def test_gone_receiver_disables_the_webhook_at_once() -> None:
    """The status 410 alone does."""
    for status in (None, 302, 400, 404, 429, 500, 503):
        assert make_webhook().after([attempt_at(NOW, status)]).enabled
    disabled = make_webhook().after([attempt_at(NOW, 410)])
    assert (disabled.enabled, disabled.disabled_reason) == (False, DisabledReason.GONE)


def test_webhook_that_only_failed_for_five_days_is_disabled() -> None:
    """Not earlier; the outcomes may come in any order."""
    failing = make_webhook().after([attempt_at(NOW + DAY), attempt_at(NOW)])
    assert failing.failing_since == NOW
    still_enabled = failing.after([attempt_at(NOW + 5 * DAY - timedelta(seconds=1))])
    assert still_enabled == failing
    disabled = failing.after([attempt_at(NOW + 5 * DAY)])
    assert (disabled.enabled, disabled.disabled_reason) == (False, DisabledReason.FAILING)


def test_success_begins_the_five_days_anew() -> None:
    """The next failure is then the first one."""
    failing = make_webhook(failing_since=NOW)
    later = NOW + 4 * DAY
    outcomes = [attempt_at(later, 200), attempt_at(later + DAY)]
    assert failing.after(outcomes[:1]).failing_since is None
    assert failing.after(outcomes).failing_since == later + DAY
    assert failing.after(outcomes).enabled


def test_new_url_is_not_judged_by_the_old_one() -> None:
    """Attempts that were running during the change do not count."""
    webhook = make_webhook(failing_since=NOW).with_url("https://other.example/")
    assert webhook.failing_since is None
    assert webhook.after([attempt_at(NOW, 410)]) == webhook


def test_disabled_webhook_keeps_its_reason() -> None:
    """Enabling clears it, and forgets the failures."""
    gone = make_webhook(failing_since=NOW).as_disabled(DisabledReason.GONE)
    assert gone.as_disabled() == gone
    assert gone.after([attempt_at(NOW, 200)]) == gone
    assert gone.as_enabled() == make_webhook()
    assert make_webhook().as_disabled().disabled_reason is None


def test_enabling_an_enabled_webhook_does_not_forget_its_failures() -> None:
    """A client that repeats its PATCH would keep a dead webhook enabled for ever."""
    failing = make_webhook(failing_since=NOW)
    assert failing.as_enabled() == failing
