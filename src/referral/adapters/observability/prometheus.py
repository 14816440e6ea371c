"""What Prometheus is told: the figures of all processes of the service, and of the queue.

Each process writes its figures into a folder every second, and the one that is asked adds them up.
What a process counted stays counted when it has died; what it held then is gone with it.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from referral.adapters.observability.samples import BOUNDS, Histogram, MetricSource, Sample
from referral.adapters.private_folders import make_private_folder

SNAPSHOT_SECONDS = 1.0
"""How old the figures of the other processes may be."""

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Metric(NamedTuple):
    """What is told under one name."""

    name: str
    kind: type[Family]
    about: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric(
        "referral_requests",
        CounterMetricFamily,
        "Requests answered.",
        ("route", "method", "status"),
    ),
    Metric(
        "referral_request_seconds", HistogramMetricFamily, "Their duration.", ("route", "method")
    ),
    Metric("referral_processes", GaugeMetricFamily, "Processes that serve."),
    Metric("referral_pool_size", GaugeMetricFamily, "Connections a pool may have.", ("pool",)),
    Metric("referral_pool_in_use", GaugeMetricFamily, "Connections that work.", ("pool",)),
    Metric("referral_pool_waiting", GaugeMetricFamily, "Who waits for one.", ("pool",)),
    Metric("referral_cache_lookups", CounterMetricFamily, "Look-ups.", ("layer", "outcome")),
    Metric("referral_breaker_open", GaugeMetricFamily, "Processes without a part.", ("part",)),
    Metric("referral_limited", CounterMetricFamily, "What a limit refused.", ("group",)),
    Metric("referral_hashes_waiting", GaugeMetricFamily, "Passwords in the queue of hashes."),
    Metric("referral_hashes_refused", CounterMetricFamily, "Passwords it had no room for."),
    Metric("referral_hash_wait_seconds", HistogramMetricFamily, "How long one waited."),
    Metric("referral_database_up", GaugeMetricFamily, "Whether the database told of the jobs."),
    Metric("referral_jobs", GaugeMetricFamily, "Jobs in the queue.", ("kind", "state")),
    Metric(
        "referral_jobs_oldest_waiting_seconds", GaugeMetricFamily, "Age of the oldest.", ("kind",)
    ),
    Metric("referral_jobs_ended", GaugeMetricFamily, "Attempts in a minute.", ("kind", "outcome")),
    Metric("referral_job_seconds", GaugeMetricFamily, "Their duration.", ("kind", "quantile")),
)
_BY_NAME = {metric.name: metric for metric in METRICS}


class ProcessMetrics:
    """See the port `Metrics`. Without a folder the process is the only one."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self,
        parts: Sequence[MetricSource],
        ask_queue: Callable[[], Awaitable[Iterable[Sample]]],
        folder: Path | None = None,
    ) -> None:
        """Take whom to ask about this process and about the queue, and where the others write."""
        self._parts = parts
        self._ask_queue = ask_queue
        self._folder = folder
        self._name = f"{os.getpid()}-{uuid4().hex}"

    async def render(self) -> bytes:
        """See the port."""
        figures = _sum([*self._own(), *self._of_others()])
        figures |= {(name, labels): value for name, labels, value in await self._ask_queue()}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Figures(figures))
        return generate_latest(registry)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Let the other processes know of this one while the block runs."""
        if self._folder is None:
            yield
            return
        make_private_folder(self._folder)
        task = asyncio.create_task(self._publish_often(self._folder))
        try:
            yield
        finally:
            task.cancel()

    async def _publish_often(self, folder: Path) -> None:
        while True:
            draft = folder / f"{self._name}.new"
            try:
                draft.write_bytes(msgspec.msgpack.encode(list(self._own())))
                draft.replace(folder / self._name)
            except OSError:
                pass  # a full disk, say: the next time, then
            except Exception:  # noqa: BLE001 - a figure that cannot be told ends no other
                structlog.get_logger().exception("figures not published")
            await asyncio.sleep(SNAPSHOT_SECONDS)

    def _own(self) -> Iterator[Sample]:
        yield Sample("referral_processes", (), 1)
        for part in self._parts:
            yield from part.measures()

    def _of_others(self) -> Iterator[Sample]:
        for file in sorted(self._folder.iterdir()) if self._folder else ():
            if file.name == self._name or file.suffix:
                continue
            with suppress(OSError, msgspec.MsgspecError):
                found = msgspec.msgpack.decode(file.read_bytes(), type=list[Sample])
                lives = _lives(int(file.name.partition("-")[0]))
                yield from (each for each in found if lives or not _is_gauge(each))


class _Figures(Collector):
    """Figures in the form that prometheus_client renders."""

    def __init__(self, figures: dict[tuple[str, tuple[str, ...]], float | Histogram]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        for name, kind, about, labels in METRICS:
            family = kind(name, about, labels=labels)
            for (other, values), value in sorted(self._figures.items(), key=lambda item: item[0]):
                if other == name:
                    _add(family, values, value)
            yield family


def _add(family: Family, labels: Sequence[str], value: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Histogram)  # noqa: S101 - of a histogram there is nothing else
        family.add_metric(labels, list(_buckets(value)), value.total)
        return
    assert not isinstance(value, Histogram)  # noqa: S101 - likewise
    family.add_metric(labels, value)


def _buckets(spread: Histogram) -> Iterator[tuple[str, float]]:
    so_far = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), spread.counts, strict=True):
        so_far += count
        yield bound, so_far


def _sum(measures: Iterable[Sample]) -> dict[tuple[str, tuple[str, ...]], float | Histogram]:
    found: dict[tuple[str, tuple[str, ...]], list[float | Histogram]] = defaultdict(list)
    for name, labels, value in measures:
        found[name, labels].append(value)
    return {key: _added(values) for key, values in found.items()}


def _added(values: Sequence[float | Histogram]) -> float | Histogram:
    spreads = [value for value in values if isinstance(value, Histogram)]
    if not spreads:
        return sum(value for value in values if not isinstance(value, Histogram))
    counts = tuple(map(sum, zip(*(spread.counts for spread in spreads), strict=True)))
    return Histogram(counts, sum(spread.total for spread in spreads))


def _is_gauge(measure: Sample) -> bool:
    return _BY_NAME[measure.name].kind is GaugeMetricFamily


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
