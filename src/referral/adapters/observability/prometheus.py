"""Prometheus metrics of all processes of the service and of the job queue.

Each process writes its samples into a shared folder every second, and the process that serves
`/metrics` adds them up. The counters of an ended process stay in the sums, its gauges do not.
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

from referral.adapters.observability.samples import (
    BOUNDS_SECONDS,
    Histogram,
    MetricSource,
    Sample,
)
from referral.adapters.private_folders import make_private_folder

SNAPSHOT_INTERVAL_SECONDS = 1.0
"""The maximum age of the other processes' samples."""

MetricFamily = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
SampleValues = dict[tuple[str, tuple[str, ...]], float | Histogram]
"""Values by metric name and label values."""


class Metric(NamedTuple):
    """The definition of a metric; label values have the order of `labels`."""

    name: str
    family_type: type[MetricFamily]
    documentation: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric(
        "referral_requests",
        CounterMetricFamily,
        "Answered requests.",
        ("route", "method", "status"),
    ),
    Metric(
        "referral_request_seconds",
        HistogramMetricFamily,
        "Duration of the requests.",
        ("route", "method"),
    ),
    Metric("referral_processes", GaugeMetricFamily, "Server processes."),
    Metric("referral_pool_size", GaugeMetricFamily, "Maximum connections of a pool.", ("pool",)),
    Metric("referral_pool_in_use", GaugeMetricFamily, "Connections in use.", ("pool",)),
    Metric(
        "referral_pool_waiting", GaugeMetricFamily, "Requests waiting for a connection.", ("pool",)
    ),
    Metric(
        "referral_cache_lookups", CounterMetricFamily, "Lookups in a cache.", ("layer", "outcome")
    ),
    Metric(
        "referral_breaker_open",
        GaugeMetricFamily,
        "Processes with an open circuit breaker.",
        ("dependency",),
    ),
    Metric("referral_limited", CounterMetricFamily, "Requests refused by a limit.", ("group",)),
    Metric("referral_hashes_waiting", GaugeMetricFamily, "Passwords waiting to be hashed."),
    Metric("referral_hashes_refused", CounterMetricFamily, "Passwords refused by the full queue."),
    Metric("referral_hash_wait_seconds", HistogramMetricFamily, "Time in the queue of hashes."),
    Metric("referral_database_up", GaugeMetricFamily, "1 if the database answered."),
    Metric("referral_jobs", GaugeMetricFamily, "Jobs in the queue.", ("kind", "state")),
    Metric(
        "referral_jobs_oldest_waiting_seconds",
        GaugeMetricFamily,
        "Age of the oldest waiting job.",
        ("kind",),
    ),
    Metric(
        "referral_jobs_ended",
        GaugeMetricFamily,
        "Attempts of the last minute.",
        ("kind", "outcome"),
    ),
    Metric(
        "referral_job_seconds", GaugeMetricFamily, "Duration of attempts.", ("kind", "quantile")
    ),
    Metric(
        "referral_events_oldest_unpublished_seconds",
        GaugeMetricFamily,
        "Age of the oldest event that is not published.",
    ),
    Metric(
        "referral_webhook_attempts",
        CounterMetricFamily,
        "Attempts at deliveries.",
        ("webhook", "outcome"),
    ),
    Metric("referral_webhook_deliveries_pending", GaugeMetricFamily, "Deliveries to attempt."),
    Metric("referral_webhooks_disabled", GaugeMetricFamily, "Disabled webhooks.", ("reason",)),
)
_METRICS_BY_NAME = {metric.name: metric for metric in METRICS}


class PrometheusMetrics:
    """Metrics of one process, or of all processes that share a folder."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self,
        sources: Sequence[MetricSource],
        read_queue_samples: Callable[[], Awaitable[Iterable[Sample]]],
        folder: Path | None = None,
    ) -> None:
        """`sources` give the samples of this process; `folder` is None for a single process."""
        self._sources = sources
        self._read_queue_samples = read_queue_samples
        self._folder = folder
        self._file_name = f"{os.getpid()}-{uuid4().hex}"

    async def render(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        values = _merge_samples([*self._own_samples(), *self._other_samples()])
        for name, labels, value in await self._read_queue_samples():
            values[name, labels] = value
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_ValueCollector(values))
        return generate_latest(registry)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish the samples of this process to the others while the block runs."""
        if self._folder is None:
            yield
            return
        make_private_folder(self._folder)
        task = asyncio.create_task(self._publish_periodically(self._folder))
        try:
            yield
        finally:
            task.cancel()

    async def _publish_periodically(self, folder: Path) -> None:
        while True:
            temporary = folder / f"{self._file_name}.new"
            try:
                temporary.write_bytes(msgspec.msgpack.encode(list(self._own_samples())))
                temporary.replace(folder / self._file_name)
            except OSError:
                pass  # such as a full disk: the next round tries again
            except Exception:  # noqa: BLE001 - one failing source must not end the publishing
                structlog.get_logger().exception("metrics not published")
            await asyncio.sleep(SNAPSHOT_INTERVAL_SECONDS)

    def _own_samples(self) -> Iterator[Sample]:
        yield Sample("referral_processes", (), 1)
        for source in self._sources:
            yield from source.samples()

    def _other_samples(self) -> Iterator[Sample]:
        for file in sorted(self._folder.iterdir()) if self._folder else ():
            if file.name == self._file_name or file.suffix:
                continue
            with suppress(OSError, msgspec.MsgspecError):
                samples = msgspec.msgpack.decode(file.read_bytes(), type=list[Sample])
                is_running = _is_running(int(file.name.partition("-")[0]))
                yield from (sample for sample in samples if is_running or not _is_gauge(sample))


class _ValueCollector(Collector):
    """Provides the values to prometheus_client's text format."""

    def __init__(self, values: SampleValues) -> None:
        self._values = values

    def collect(self) -> Iterator[MetricFamily]:
        values = sorted(self._values.items(), key=lambda item: item[0])
        for metric in METRICS:
            family = metric.family_type(metric.name, metric.documentation, labels=metric.labels)
            for (name, labels), value in values:
                if name == metric.name:
                    _add_to_family(family, labels, value)
            yield family


def _add_to_family(family: MetricFamily, labels: Sequence[str], value: float | Histogram) -> None:
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Histogram)  # noqa: S101 - samples of a histogram
        family.add_metric(labels, list(_buckets(value)), value.total_seconds)
        return
    assert not isinstance(value, Histogram)  # noqa: S101 - samples of a counter or gauge
    family.add_metric(labels, value)


def _buckets(histogram: Histogram) -> Iterator[tuple[str, float]]:
    bounds = (*map(str, BOUNDS_SECONDS), "+Inf")
    cumulative = 0
    for bound, count in zip(bounds, histogram.bucket_counts, strict=True):
        cumulative += count
        yield bound, cumulative


def _merge_samples(samples: Iterable[Sample]) -> SampleValues:
    grouped: dict[tuple[str, tuple[str, ...]], list[float | Histogram]] = defaultdict(list)
    for name, labels, value in samples:
        grouped[name, labels].append(value)
    return {key: _merge_values(values) for key, values in grouped.items()}


def _merge_values(values: Sequence[float | Histogram]) -> float | Histogram:
    histograms = [value for value in values if isinstance(value, Histogram)]
    if not histograms:
        return sum(value for value in values if not isinstance(value, Histogram))
    counts = zip(*(histogram.bucket_counts for histogram in histograms), strict=True)
    total_seconds = sum(histogram.total_seconds for histogram in histograms)
    return Histogram(tuple(map(sum, counts)), total_seconds)


def _is_gauge(sample: Sample) -> bool:
    return _METRICS_BY_NAME[sample.name].family_type is GaugeMetricFamily


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
