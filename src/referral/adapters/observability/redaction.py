"""A net under the log: what reads like an address, a token or a value of a row is cut out.

Nothing of ours logs such a thing. Texts of errors that come from libraries may hold one.
"""

import re
from typing import Any

from structlog.types import EventDict, WrappedLogger

REDACTED = "[…]"

ADDRESS_CHARACTER = r"[^\s@\"'<>()=,;]"
"""A character of either side of an address."""

REDACTION_RULES = (
    # PostgreSQL and its driver show values: Key (email)=(…) already exists.
    (
        re.compile(
            r"(DETAIL:|CONTEXT:|query argument \$\d+:|invalid input (?:for|syntax)[^:\n]*:)"
            r".*?(?=\n\[SQL|\nTraceback|\n\nThe above|\n\nDuring|\Z)",
            re.DOTALL,
        ),
        rf"\1 {REDACTED}",
    ),
    # A match starts where a word does: from each letter of a long word it would be quadratic.
    (re.compile(rf"(?<!{ADDRESS_CHARACTER}){ADDRESS_CHARACTER}+@{ADDRESS_CHARACTER}+"), REDACTED),
    # Tokens have 43 characters and more, ids and their like 36 at most.
    (re.compile(r"(?<![\w/.-])[A-Za-z0-9_-]{40,}(?:\.[A-Za-z0-9_-]+)*(?![\w/])"), REDACTED),
)

SAFE_FIELDS = frozenset({"request_id", "kids", "filename", "database", "mail"})
"""Fields of our own that are for everyone: ids, names of keys, paths of files."""


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut out what has no place in a log; goes before the last processor of structlog."""
    return {
        name: value if name in SAFE_FIELDS else _redact_value(value)
        for name, value in event.items()
    }


def _redact_value(value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(value, str):
        for pattern, replacement in REDACTION_RULES:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {
            key: each if key in SAFE_FIELDS else _redact_value(each) for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact_value(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _redact_value(str(value))
