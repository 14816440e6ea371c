"""`/metrics`: its values, its access rules, and several processes."""

import asyncio
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import msgspec
import pytest
from asgi_lifespan import LifespanManager
from structlog.testing import capture_logs

from referral.adapters.jobs import metrics as queue_figures
from referral.adapters.jobs.metrics import QueueMetrics
from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.observability import prometheus as metrics
from referral.adapters.observability.prometheus import PrometheusMetrics
from referral.adapters.observability.samples import Histogram, RequestMetrics, Sample
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.app import create_app
from referral.core.entities.events import Event, EventType
from referral.core.entities.jobs import Job, JobContext, PasswordResetMailJob, WelcomeMailJob
from referral.core.entities.rate_limits import Rate
from referral.settings import Settings
from tests.conftest import ServiceFactory, execute
from tests.integration.conftest import StartWorker
from tests.support.api_client import API, join, log_in, new_email
from tests.support.fakes.security import FakeFingerprinter
from tests.support.metrics import Metrics, scrape
from tests.support.server_processes import RedisProcess
from tests.support.service_process import running_service
from tests.support.waiting import wait_for_value, wait_until


async def test_requests_are_counted_by_route_template(client: httpx.AsyncClient) -> None:
    """Unknown paths and methods share one label value."""
    for number in range(3):
        await client.get(f"/r/code-{number}")
        await client.get(f"/nowhere/{number}")
    await client.request("ANN", "/health/live")
    figures = await scrape(client)
    share = {"route": "/r/{code}", "method": "GET"}
    assert figures.value("referral_requests_total", status="302", **share) == 3
    assert figures.value("referral_request_seconds_count", **share) == 3
    assert figures.value("referral_request_seconds_bucket", le="+Inf", **share) == 3
    assert 0 < figures.value("referral_request_seconds_sum", **share) < 3
    assert figures.value("referral_requests_total", route="unknown", method="GET") == 3
    assert figures.value("referral_requests_total", method="OTHER") == 1
    names = {metric.name for metric in metrics.METRICS}
    assert {family.name for family in figures.families} == names


async def test_components_report_their_state(
    settings: Settings, serve: ServiceFactory, own_redis: RedisProcess
) -> None:
    """Cache layers, breakers, rate limits, pools and the hash queue have metrics."""
    changed = msgspec.structs.replace(
        settings,
        redis_url=own_redis.url,
        limit_lookup=Rate.parse("3/minute"),
        limit_token=Rate.parse("30/minute"),
    )
    async with serve(changed) as client:
        ann = await join(client)
        await ann.issue_code()
        for _ in range(5):
            await client.get(f"{API}/codes/lookup", params={"email": ann.email})
        healthy = await scrape(client)
        own_redis.kill()
        for _ in range(2):
            await client.get("/health/ready")
        broken = await scrape(client)
    assert healthy.value("referral_cache_lookups_total", layer="process", outcome="miss") == 1
    assert healthy.value("referral_cache_lookups_total", layer="process", outcome="hit") == 2
    assert healthy.value("referral_cache_lookups_total", layer="redis", outcome="miss") == 1
    assert healthy.value("referral_limited_total", group="lookup") == 2
    assert healthy.value("referral_hash_wait_seconds_count") == 2
    assert healthy.value("referral_hashes_waiting") == 0
    assert healthy.value("referral_pool_size", pool="main") == 10
    assert healthy.value("referral_database_up") == 1
    assert healthy.value("referral_processes") == 1
    parts = [
        figures.value("referral_breaker_open", dependency="redis") for figures in (healthy, broken)
    ]
    assert parts == [0, 1]


async def test_pool_reports_connections_in_use_and_waiters(database: PostgresDatabase) -> None:
    """With all connections in use two callers wait; afterwards none does."""
    free = asyncio.Event()

    async def hold() -> None:
        async with database.read():
            await free.wait()

    holders = [asyncio.create_task(hold()) for _ in range(12)]
    await wait_for_value(lambda: _is(_pool(database) == (10, 2)))
    free.set()
    await asyncio.gather(*holders)
    assert _pool(database) == (0, 0)


def _pool(database: PostgresDatabase) -> tuple[Any, Any]:
    samples = {sample.name: sample.value for sample in database.samples()}
    return samples["referral_pool_in_use"], samples["referral_pool_waiting"]


async def _is(found: bool) -> bool:  # noqa: FBT001 - as it comes
    return found


async def test_queue_metrics_come_from_the_database(
    database_url: str,
    database: PostgresDatabase,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are jobs by state, the oldest job's age, and the outcomes of the last minute."""
    monkeypatch.setattr(queue_figures, "QUEUE_METRICS_TTL_SECONDS", 0)
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with database.begin() as repositories:
        await repositories.jobs.enqueue(
            WelcomeMailJob(uuid4()), WelcomeMailJob(uuid4()), PasswordResetMailJob(uuid4())
        )
    await execute(database_url, "UPDATE pgqueuer SET created = created - interval '1 hour'")
    read = QueueMetrics(database)
    before = dict(_by_series(await read()))
    assert before["referral_jobs", ("welcome-mail", "waiting")] == 2
    age = before["referral_jobs_oldest_waiting_seconds", ("reset-mail",)]
    assert isinstance(age, float)
    assert 3600 <= age < 3700

    async def handle(job: Job, _: JobContext) -> None:
        if isinstance(job, PasswordResetMailJob):
            raise ConnectionError

    async with start_worker(handle):

        async def ended() -> dict[Any, Any] | None:
            found = dict(_by_series(await read()))
            done = found.get(("referral_jobs_ended", ("welcome-mail", "done")))
            again = found.get(("referral_jobs_ended", ("reset-mail", "again")))
            return found if done == 2 and again else None

        found = await wait_for_value(ended)
        assert found is not None
    assert 0 <= found["referral_job_seconds", ("welcome-mail", "0.95")] < 60


async def test_age_of_unpublished_events(
    database_url: str, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the oldest one, until it is published."""
    monkeypatch.setattr(queue_figures, "QUEUE_METRICS_TTL_SECONDS", 0)
    await execute(database_url, "TRUNCATE event_outbox")
    read, name = QueueMetrics(database), "referral_events_oldest_unpublished_seconds"

    async def age() -> float:
        return float(dict(_by_series(await read()))[name, ()])

    assert await age() == 0
    now = datetime.now(UTC)
    async with database.begin() as repositories:
        hour, minute = timedelta(hours=1), timedelta(minutes=1)
        await repositories.events.add(
            *(Event(uuid4(), EventType.CODE_CREATED, now - ago, {}) for ago in (hour, minute))
        )
    assert 3600 <= await age() < 3700
    async with database.begin() as repositories:
        await repositories.events.publish(1, wait=True)
    assert 60 <= await age() < 160
    async with database.begin() as repositories:
        await repositories.events.publish(1, wait=True)
    assert await age() == 0


def _by_series(measures: list[Sample]) -> Any:
    return (((name, labels), value) for name, labels, value in measures)


async def test_scrape_works_without_the_database() -> None:
    """`referral_database_up` is 0, and the other metrics are present."""
    engine = make_engine("postgresql://nobody@127.0.0.1:9/nothing")
    figures = PrometheusMetrics(
        (RequestMetrics(),),
        QueueMetrics(PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)),
    )
    scraped = Metrics((await figures.render()).decode())
    await engine.dispose()
    assert scraped.value("referral_database_up") == 0
    assert scraped.value("referral_processes") == 1


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("10.1.2.3", {}, 200),
        ("10.1.2.3", {"X-Forwarded-For": "10.9.9.9"}, 200),
        ("10.1.2.3", {"X-Forwarded-For": '"[::1]:80", 10.9.9.9:4711'}, 200),
        ("10.1.2.3", {"X-Forwarded-For": "203.0.113.9:4711"}, 404),
        ("10.1.2.3", {"X-Forwarded-For": "203.0.113.9"}, 404),
        ("10.1.2.3", {"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}, 404),
        ("10.1.2.3", {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"}, 404),
        ("10.1.2.3", {"X-Forwarded-For": "nonsense"}, 404),
        ("10.1.2.3", {"X-Forwarded-For": ""}, 404),
        ("10.1.2.3", {"Forwarded": "for=127.0.0.1"}, 404),
        ("127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 404),
        ("127.0.0.1", {"X-Real-IP": "203.0.113.9"}, 404),
        ("203.0.113.9", {}, 404),
        ("203.0.113.9", {"X-Forwarded-For": "127.0.0.1"}, 404),
        ("192.168.1.1", {}, 404),
    ],
)
async def test_metrics_are_restricted_to_known_networks(
    settings: Settings, peer: str, headers: dict[str, str], status: int
) -> None:
    """Loopback and trusted networks get metrics; a forwarded client must be in one too."""
    app = cast(
        "Any", create_app(msgspec.structs.replace(settings, trusted_proxies=("10.0.0.0/8",)))
    )
    async with LifespanManager(app) as running:
        transport = httpx.ASGITransport(running.app, client=(peer, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.get("/metrics", headers=headers)
            unknown = await client.get("/metricsx", headers=headers)
    assert response.status_code == status
    if status == 404:
        assert response.json()["detail"] == unknown.json()["detail"]


def published_counts(folder: Path) -> float:
    """Return the number of `/health/live` requests in the processes' snapshot files."""
    files = [file for file in folder.iterdir() if not file.suffix]
    found = [msgspec.msgpack.decode(file.read_bytes(), type=list[Sample]) for file in files]
    counts = [each for each in chain(*found) if each.name == "referral_requests"]
    return sum(cast("float", each.value) for each in counts if "/health/live" in each.labels)


class FailingSource:
    """A metric source whose first read fails."""

    def __init__(self) -> None:
        self.ends: list[Exception] = [LookupError()]

    def samples(self) -> Iterator[Sample]:
        if self.ends:
            raise self.ends.pop()
        yield Sample("referral_processes", (), 1)


async def test_failing_source_does_not_stop_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is logged, and the next snapshot is written."""

    async def ask_queue() -> list[Sample]:
        return []

    monkeypatch.setattr(
        "referral.adapters.observability.prometheus.SNAPSHOT_INTERVAL_SECONDS", 0.01
    )
    metrics = PrometheusMetrics([FailingSource()], ask_queue, tmp_path)
    with capture_logs() as logs:
        async with metrics.publishing():
            await wait_until(lambda: [file for file in tmp_path.iterdir() if not file.suffix])
    assert [line["event"] for line in logs] == ["metrics not published"]


async def test_metrics_cover_all_processes(tmp_path: Path) -> None:
    """Each process reports all requests, also of a killed process."""
    folder = tmp_path / "data" / "metrics"
    with running_service(tmp_path / "data", "--workers", "2") as service:
        async with httpx.AsyncClient(base_url=service.url) as client:

            async def both() -> bool:
                return (await scrape(client)).value("referral_processes") == 2

            await wait_for_value(both)
            before = (await scrape(client)).value("referral_requests_total", route="/health/live")
            for _ in range(40):
                async with httpx.AsyncClient(base_url=service.url) as other:
                    await other.get("/health/live")

            async def counted() -> bool:
                scraped = await scrape(client)
                count = scraped.value("referral_requests_total", route="/health/live")
                return count == published_counts(folder) == before + 40

            await wait_for_value(counted)
        pid = int(next(file.name for file in folder.iterdir() if not file.suffix).split("-")[0])
        os.kill(pid, signal.SIGKILL)
        async with httpx.AsyncClient(
            base_url=service.url, transport=httpx.AsyncHTTPTransport(retries=5)
        ) as client:

            async def are_kept() -> bool:
                try:
                    scraped = await scrape(client)
                except httpx.TransportError:
                    return False
                files = [file for file in folder.iterdir() if not file.suffix]
                counts = scraped.value("referral_requests_total", route="/health/live")
                return (
                    len(files) == 3
                    and counts == before + 40
                    and scraped.value("referral_processes") == 2
                )

            await wait_for_value(are_kept)


def test_histograms_of_processes_are_summed() -> None:
    """They are summed bucket by bucket."""
    key = ("referral_hash_wait_seconds", ())
    measures = [Sample(*key, Histogram((1, 2), 0.5)), Sample(*key, Histogram((0, 3), 1.5))]
    assert metrics._merge_samples(measures) == {key: Histogram((1, 5), 2.0)}  # noqa: SLF001


async def test_logins_show_in_the_hash_queue(settings: Settings, serve: ServiceFactory) -> None:
    """Failed logins count too, as they hash as well."""
    async with serve(settings) as client:
        await asyncio.gather(*(log_in(client, new_email()) for _ in range(4)))
        assert (await scrape(client)).value("referral_hash_wait_seconds_count") == 4
