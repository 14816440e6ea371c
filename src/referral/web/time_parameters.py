"""Times in queries."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar.params import QueryParameter

from referral.web.allowed_values import TIME_DETAIL
from referral.web.field_types import Timestamp
from referral.web.problems import FieldError, ValidationFailed

Since = Annotated[
    str | None,
    QueryParameter(
        description="Only from this time on, with a UTC offset.",
        schema_extra={"format": "date-time"},
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(
        description="Only from before this time, with a UTC offset.",
        schema_extra={"format": "date-time"},
    ),
]


def parse_time(text: str | None, name: str) -> datetime | None:
    """Return the time of a query parameter; raises `ValidationFailed`."""
    if text is None:
        return None
    try:
        return msgspec.convert(text, Timestamp).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise ValidationFailed(FieldError(TIME_DETAIL, parameter=name)) from None
