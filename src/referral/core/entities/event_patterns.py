"""Patterns of event types: `code.created`, all types of a group such as `code.*`, or `*`."""

from collections.abc import Collection

from referral.core.entities.events import FEED_EVENT_TYPES, EventType
from referral.core.errors import InvalidRequest

ALL_EVENTS = "*"


def check_patterns(patterns: Collection[str], *, field: str) -> tuple[str, ...]:
    """Return the patterns without repetitions; raises `InvalidRequest` if they select nothing."""
    if not patterns or not set(patterns) <= set(PATTERNS):
        detail = f"Unknown type of events. Send some of: {', '.join(PATTERNS)}."
        raise InvalidRequest(detail, field=field)
    return tuple(dict.fromkeys(patterns))


def is_selected(event_type: str, patterns: Collection[str]) -> bool:
    """Return whether one of the patterns matches a type, which a later release may have added."""
    return not {event_type, _group(event_type), ALL_EVENTS}.isdisjoint(patterns)


def select_types(patterns: Collection[str]) -> list[EventType]:
    """Return the types that match one of the patterns."""
    return [each for each in FEED_EVENT_TYPES if is_selected(each, patterns)]


def _group(event_type: str) -> str:
    return f"{event_type.partition('.')[0]}.*"


PATTERNS = (*FEED_EVENT_TYPES, *dict.fromkeys(map(_group, FEED_EVENT_TYPES)), ALL_EVENTS)
"""The valid patterns."""
