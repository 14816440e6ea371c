"""Metric samples of a process, kept as plain numbers so that counting costs little."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of the histograms' buckets."""


class Histogram(NamedTuple):
    """The number of durations in each bucket, the last one unbounded, and their sum."""

    bucket_counts: tuple[int, ...]
    total_seconds: float


class Sample(NamedTuple):
    """A value of a metric, with the values of its labels."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


@runtime_checkable
class MetricSource(Protocol):
    """An object that provides metric samples."""

    def samples(self) -> Iterator[Sample]:
        """Return the current samples."""
        ...


class DurationHistogram:
    """A histogram that is being counted."""

    __slots__ = ("bucket_counts", "total_seconds")

    def __init__(self) -> None:
        """All buckets begin at zero."""
        self.bucket_counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.bucket_counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def histogram(self) -> Histogram:
        """Return the current counts."""
        return Histogram(tuple(self.bucket_counts), self.total_seconds)


class RequestMetrics:
    """The numbers and durations of the answered requests."""

    def __init__(self) -> None:
        """All counts begin at zero."""
        self._counts: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], DurationHistogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response and its duration."""
        key = (route, method, status)
        try:
            self._counts[key] += 1
            self._durations[route, method].observe(seconds)
        except KeyError:
            self._counts[key] = 1
            self._durations.setdefault((route, method), DurationHistogram()).observe(seconds)

    def samples(self) -> Iterator[Sample]:
        """Return the numbers and durations by route."""
        for (route, method, status), count in self._counts.items():
            yield Sample("referral_requests", (route, method, str(status)), count)
        for labels, durations in self._durations.items():
            yield Sample("referral_request_seconds", labels, durations.histogram())
