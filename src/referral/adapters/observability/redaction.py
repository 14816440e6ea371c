"""A net under the log: what reads like an address, a token or a value of a row is cut out.

Nothing of ours logs such a thing. Texts of errors that come from libraries may hold one.
"""

import re
from typing import Any

from structlog.types import EventDict, WrappedLogger

CUT = "[…]"

WORD = r"[^\s@\"'<>()=,;]"
"""A character of either side of an address."""

RULES = (
    # PostgreSQL and its driver show values: Key (email)=(…) already exists.
    (
        re.compile(
            r"(DETAIL:|CONTEXT:|query argument \$\d+:|invalid input (?:for|syntax)[^:\n]*:)"
            r".*?(?=\n\[SQL|\nTraceback|\n\nThe above|\n\nDuring|\Z)",
            re.DOTALL,
        ),
        rf"\1 {CUT}",
    ),
    # A match starts where a word does: from each letter of a long word it would be quadratic.
    (re.compile(rf"(?<!{WORD}){WORD}+@{WORD}+"), CUT),
    # Tokens have 43 characters and more, ids and their like 36 at most.
    (re.compile(r"(?<![\w/.-])[A-Za-z0-9_-]{40,}(?:\.[A-Za-z0-9_-]+)*(?![\w/])"), CUT),
)

OPEN = frozenset({"request_id", "kids", "filename", "database", "mail"})
"""Fields of our own that are for everyone: ids, names of keys, paths of files."""


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Cut out what has no place in a log; goes before the last processor of structlog."""
    return {name: value if name in OPEN else _clean(value) for name, value in event.items()}


def _clean(value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(value, str):
        for pattern, instead in RULES:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, dict):
        return {key: each if key in OPEN else _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _clean(str(value))
