"""The header `Retry-After` of a response."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

MAX_DIGITS = 9
"""More seconds than these digits hold are as good as none: decades."""


def parse_retry_after(status: int, text: str | None, now: datetime) -> timedelta | None:
    """Return the delay that a response demands; None without a valid one."""
    if text is None or status not in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }:
        return None
    if text.isascii() and text.isdigit():
        return timedelta(seconds=int(text[:MAX_DIGITS]))
    try:
        time = parsedate_to_datetime(text)
        return max(time.replace(tzinfo=time.tzinfo or UTC) - now, timedelta(0))
    except (ValueError, OverflowError):
        return None
