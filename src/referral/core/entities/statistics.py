"""Figures of the programme by UTC day, week or month, and the filter of the list of referrers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import TypeVar
from uuid import UUID

from referral.core.errors import InvalidRequest

MAX_INTERVALS = 4000
"""Intervals of one request: ten years of days."""

DAY = timedelta(days=1)
T = TypeVar("T")


class Interval(StrEnum):
    """What a row of statistics is about. Weeks begin on Monday, as in ISO 8601."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def start_of(self, day: date) -> date:
        """Return the first day of the interval that contains a day."""
        if self is Interval.WEEK:
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self is Interval.MONTH else day


LONGEST_DAYS = {Interval.DAY: 1, Interval.WEEK: 7, Interval.MONTH: 31}
"""Days after the start of an interval that are enough to be in the next one."""


@dataclass(frozen=True, slots=True)
class StatisticsRange:
    """The days from `first` to before `end`, and how they are grouped."""

    first: date
    end: date
    interval: Interval

    @classmethod
    def of(cls, since: datetime, until: datetime, interval: Interval) -> "StatisticsRange":
        """Return the days that overlap with since <= time < until.

        Raises `InvalidRequest` if there are none, or too many intervals.
        """
        if until <= since:
            raise InvalidRequest("Send a time that is later than `from`.", field="to")
        first, last = since.astimezone(UTC).date(), (until - datetime.resolution).astimezone(UTC)
        wanted = cls(first, min(last.date(), date.max - DAY) + DAY, interval)
        if sum(1 for _ in islice(wanted.starts(), MAX_INTERVALS + 1)) > MAX_INTERVALS:
            detail = f"At most {MAX_INTERVALS} intervals: send a later time, or a longer interval."
            raise InvalidRequest(detail, field="from")
        return wanted

    def starts(self) -> Iterator[date]:
        """Yield the first day of each interval, which may be before `first`."""
        start = self.interval.start_of(self.first)
        while start < self.end:
            yield start
            last_day = min(start.toordinal() + LONGEST_DAYS[self.interval], date.max.toordinal())
            following = self.interval.start_of(date.fromordinal(last_day))
            start = following if following > start else date.max

    def fill(self, rows: Mapping[date, T], empty: T) -> list[tuple[datetime, T]]:
        """Return a row for each interval, with its start; `empty` replaces missing rows."""
        return [
            (datetime(start.year, start.month, start.day, tzinfo=UTC), rows.get(start, empty))
            for start in self.starts()
        ]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of an interval.

    `referred` counts the users who joined by a referral; `confirmed` and `rejected` count
    decisions, in the interval in which they were made; `codes` counts new codes.
    """

    registered: int = 0
    referred: int = 0
    confirmed: int = 0
    rejected: int = 0
    codes: int = 0


@dataclass(frozen=True, slots=True)
class UserStatistics:
    """A referrer's figures of an interval: users who joined, and confirmations made in it."""

    joined: int = 0
    confirmed: int = 0


@dataclass(frozen=True, slots=True)
class ReferrerFilter:
    """Which referrals a list of referrers counts: since <= joined_at < until; None means all."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReferrerFigures:
    """A referrer's referrals by their status now."""

    user_id: UUID
    confirmed: int
    pending: int
    rejected: int
