"""The periods of `referrer_statistics` that a range of times consists of."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from referral.core.entities.statistics import ReferrerFilter

FIRST_DAY, LAST_DAY = date.min, date.max
"""Sent by asyncpg as the dates -infinity and infinity."""

Periods = tuple[str, date, date]
"""The periods of a kind that start from a day on and before another one."""


@dataclass(frozen=True, slots=True)
class JoinedPeriods:
    """The whole days from `first` to before `end`, as few periods, and the parts of other days."""

    first: date
    end: date
    periods: list[Periods]
    parts: list[tuple[datetime, datetime]]

    @classmethod
    def of(cls, wanted: ReferrerFilter) -> "JoinedPeriods":
        """Return the periods and parts of since <= time < until."""
        since, until = wanted.since, wanted.until
        first = FIRST_DAY if since is None else _first_whole_day(since)
        end = LAST_DAY if until is None else until.date()
        if since is not None and until is not None and end < first:
            return cls(first, end, [], [(since, until)])
        parts = []
        if since is not None and since < _midnight(first):
            parts.append((since, _midnight(first)))
        if until is not None and _midnight(end) < until:
            parts.append((_midnight(end), until))
        return cls(first, end, _split(first, end, "year", "month", "day"), parts)

    @property
    def single(self) -> Periods | None:
        """The period, if the range is just one."""
        if self.parts or len(self.periods) != 1:
            return None
        [(period, first, end)] = self.periods
        is_single = period == "all" or (first != FIRST_DAY and _next(first, period) == end)
        return (period, first, end) if is_single else None

    @property
    def columns(self) -> tuple[object, ...]:
        """The columns of the periods, the whole days, and the columns of the parts."""
        periods = [list(column) for column in zip(*self.periods, strict=True)] or [[], [], []]
        parts = [list(column) for column in zip(*self.parts, strict=True)] or [[], []]
        return (*periods, self.first, self.end, *parts)


def _split(first: date, end: date, longest: str, *shorter: str) -> list[Periods]:
    if (first, end) == (FIRST_DAY, LAST_DAY):
        return [("all", first, end)]
    if not shorter:
        return [(longest, first, end)] if first < end else []
    lower, upper = _ceil(first, longest), _start(end, longest)
    if lower >= upper:
        return _split(first, end, *shorter)
    whole = (longest, lower, upper)
    return [*_split(first, lower, *shorter), whole, *_split(upper, end, *shorter)]


def _start(day: date, period: str) -> date:
    if period == "day" or day in {FIRST_DAY, LAST_DAY}:
        return day
    return day.replace(day=1) if period == "month" else day.replace(month=1, day=1)


def _next(start: date, period: str) -> date:
    """Return the start of the next period."""
    days = {"day": 1, "month": 31, "year": 366}[period]
    following = start.toordinal() + days
    if following >= LAST_DAY.toordinal():
        return LAST_DAY
    return _start(date.fromordinal(following), period)


def _ceil(day: date, period: str) -> date:
    """Return the first start of a period that is not before a day."""
    start = _start(day, period)
    return day if start == day else _next(start, period)


def _first_whole_day(since: datetime) -> date:
    day = since.date()
    return day if since == _midnight(day) else _next(day, "day")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
