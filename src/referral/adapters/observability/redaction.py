"""Redaction of log events: removes e-mail addresses, tokens and values of database rows.

The service's own events contain none of them, but the error messages of libraries may.
"""

import re
from typing import Any

from structlog.types import EventDict, WrappedLogger

REDACTED = "[…]"

ADDRESS_CHARACTER = r"[^\s@\"'<>()=,;]"
"""A character on either side of an address's @-sign."""

REDACTION_RULES = (
    # PostgreSQL and asyncpg quote values: Key (email)=(…) already exists.
    (
        re.compile(
            r"(DETAIL:|CONTEXT:|query argument \$\d+:|invalid input (?:for|syntax)[^:\n]*:)"
            r".*?(?=\n\[SQL|\nTraceback|\n\nThe above|\n\nDuring|\Z)",
            re.DOTALL,
        ),
        rf"\1 {REDACTED}",
    ),
    # A match starts only at the start of a word: a start at each letter takes quadratic time.
    (re.compile(rf"(?<!{ADDRESS_CHARACTER}){ADDRESS_CHARACTER}+@{ADDRESS_CHARACTER}+"), REDACTED),
    # Tokens have at least 43 characters, ids at most 36.
    (re.compile(r"(?<![\w/.-])[A-Za-z0-9_-]{40,}(?:\.[A-Za-z0-9_-]+)*(?![\w/])"), REDACTED),
)

SAFE_FIELDS = frozenset({"request_id", "kids", "filename", "database", "mail"})
"""Fields with ids, key ids and paths, which are never redacted."""


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Redact an event; the structlog processor before the final renderer."""
    return {
        name: value if name in SAFE_FIELDS else _redact_value(value)
        for name, value in event.items()
    }


def _redact_value(value: Any) -> Any:  # noqa: ANN401 - any value can be logged
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
