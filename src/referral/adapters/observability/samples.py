"""Figures that a process keeps about itself: plain numbers, so that keeping them costs nothing."""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

BUCKET_BOUNDS_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""The upper ends, in seconds, of what durations are sorted into."""


class Histogram(NamedTuple):
    """How durations spread: how many in each of `BOUNDS` and beyond, and all of them together."""

    bucket_counts: tuple[int, ...]
    total_seconds: float


class Sample(NamedTuple):
    """A figure of a metric with the values of its labels."""

    name: str
    labels: tuple[str, ...]
    value: float | Histogram


@runtime_checkable
class MetricSource(Protocol):
    """A part that tells figures about itself."""

    def samples(self) -> Iterator[Sample]:
        """Tell them as they are now."""
        ...


class DurationHistogram:
    """Durations, sorted into `BOUNDS`."""

    __slots__ = ("bucket_counts", "total_seconds")

    def __init__(self) -> None:
        """Begin with none."""
        self.bucket_counts = [0] * (len(BUCKET_BOUNDS_SECONDS) + 1)
        self.total_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.bucket_counts[bisect_left(BUCKET_BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def histogram(self) -> Histogram:
        """Return them as they are now."""
        return Histogram(tuple(self.bucket_counts), self.total_seconds)


class RequestMetrics:
    """Requests that were answered."""

    def __init__(self) -> None:
        """Begin with none."""
        self._counts: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], DurationHistogram] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one."""
        key = (route, method, status)
        try:
            self._counts[key] += 1
            self._durations[route, method].observe(seconds)
        except KeyError:
            self._counts[key] = 1
            self._durations.setdefault((route, method), DurationHistogram()).observe(seconds)

    def samples(self) -> Iterator[Sample]:
        """See `MetricSource`."""
        for (route, method, status), count in self._counts.items():
            yield Sample("referral_requests", (route, method, str(status)), count)
        for labels, durations in self._durations.items():
            yield Sample("referral_request_seconds", labels, durations.histogram())
