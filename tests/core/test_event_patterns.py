"""Patterns of event types, in the feed and in webhooks."""

import pytest

from referral.core.entities.event_patterns import (
    PATTERNS,
    check_patterns,
    is_selected,
    select_types,
)
from referral.core.entities.events import FEED_EVENT_TYPES
from referral.core.errors import InvalidRequest

REFERRALS = {"referral.created", "referral.confirmed", "referral.rejected"}


@pytest.mark.parametrize(
    ("patterns", "types"),
    [
        (("*",), set(FEED_EVENT_TYPES)),
        (("user.*", "*"), set(FEED_EVENT_TYPES)),
        (("referral.*",), REFERRALS),
        (("referral.rejected", "referral.*"), REFERRALS),
        (("user.erased", "referral.*"), REFERRALS | {"user.erased"}),
        (("code.created",), {"code.created"}),
    ],
)
def test_patterns_select_types(patterns: tuple[str, ...], types: set[str]) -> None:
    """All types, those of a group, or one, in the order of their declaration and each once."""
    assert select_types(patterns) == [each for each in FEED_EVENT_TYPES if each in types]
    assert {each for each in FEED_EVENT_TYPES if is_selected(each, patterns)} == types


def test_types_of_a_later_release_are_selected() -> None:
    """By their group and by `*`: two releases may run beside each other."""
    assert is_selected("code.gilded", ["code.*"])
    assert is_selected("code.gilded", ["*"])
    assert not is_selected("code.gilded", ["user.*", "code.created"])


def test_repeated_patterns_are_dropped() -> None:
    """In the order of the request."""
    patterns = ["referral.*", "code.created", "referral.*", "*"]
    assert check_patterns(patterns, field="events") == ("referral.*", "code.created", "*")
    assert check_patterns(PATTERNS, field="events") == PATTERNS


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "code", "code.", ".*", "code.*.*", "shop.*", "code.c*", "CODE.created", "**"),
        *("webhook.*", "webhook.test"),
    ],
)
def test_unknown_patterns_are_rejected(pattern: str) -> None:
    """Also beside a valid one; the detail lists the valid ones."""
    with pytest.raises(InvalidRequest, match=r"Send some of: .*code.created.*code\.\*") as raised:
        check_patterns(["*", pattern], field="type")
    assert raised.value.field == "type"


def test_no_pattern_is_rejected() -> None:
    """A webhook for no events is a mistake."""
    with pytest.raises(InvalidRequest, match=r"Send some of: .*code.created"):
        check_patterns([], field="events")
