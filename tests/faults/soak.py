"""Steady load for a long time: `python -m tests.faults.soak [MINUTES]`, 10 by default.

The capacity in requests per second is measured with all routes mixed; then half of it is applied.
Memory, file handles and connections to PostgreSQL and Redis are sampled every 2 s. They must be
flat: the regression line of the later half hardly rises. No request may fail.
"""

import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
from redis import Redis

from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import look_up
from tests.support.api_client import API, PASSWORD, Member, join, log_in, new_email, register
from tests.support.process_stats import find_worker, memory_usage, open_file_count
from tests.support.service_process import Service

MEMBERS = 40
MEASURING_SECONDS = 10.0
EVERY_SECONDS = 2.0
SHARE = 0.5
CONNECTIONS = 32
REFUSALS = {404, 409, 422}
"""Statuses that the mix itself causes, such as a code that another request has replaced."""

MAX_RISE = {"memory_mb": 5.0, "file_handles": 8.0, "postgres": 4.0, "redis": 4.0}
"""Maximum rise of the regression line over the later half, when caches and pools are full."""


@dataclass
class Load:
    """Members who use all routes in a random mix."""

    client: httpx.AsyncClient
    members: list[Member]
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    durations: list[float] = field(default_factory=list)

    def choose(self) -> Awaitable[httpx.Response]:
        """Return the next request; requests that hash are rare."""
        member = random.choice(self.members)  # noqa: S311 - no secret
        kinds: list[tuple[float, Callable[[], Awaitable[httpx.Response]]]] = [
            (30, lambda: look_up(self.client, member.email)),
            (5, lambda: self.client.post(f"{API}/codes/lookup", json={"email": new_email()})),
            (5, lambda: self.client.get(f"{API}/codes/NOSUCHCODE/validity")),
            (3, lambda: self.client.get("/r/NOSUCHCODE")),
            (15, lambda: member.request("GET", "/me")),
            (8, lambda: member.request("GET", "/me/codes")),
            (8, lambda: member.request("GET", "/me/referrals")),
            (4, lambda: member.request("PATCH", "/me", json={"locale": "ru"})),
            (8, lambda: self._replace(member)),
            (3, lambda: self._join(member)),
            (2, lambda: log_in(self.client, member.email)),
            (2, lambda: self.client.get("/openapi.json")),
            (3, lambda: self.client.get("/health/ready")),
            (2, lambda: self._get_qr_code(member)),
            (1, lambda: member.request("GET", "/me/export")),
            (1, self._register_and_delete),
        ]
        weights = [weight for weight, _ in kinds]
        return random.choices(kinds, weights)[0][1]()  # noqa: S311 - no secret

    async def send(self) -> None:
        """Send a request and record its outcome."""
        started = time.monotonic()
        try:
            status = (await self.choose()).status_code
        except httpx.TransportError as error:
            self.failures[type(error).__name__] += 1
            return
        self.durations.append(time.monotonic() - started)
        self.statuses[status] += 1
        if status >= 400 and status not in REFUSALS:
            self.failures[str(status)] += 1

    async def _replace(self, member: Member) -> httpx.Response:
        body = {"lifetime_minutes": 60, "replace": True}
        created = await member.request("POST", "/me/codes", json=body)
        if created.is_success and random.random() < 0.3:  # noqa: S311 - no secret
            return await member.request("DELETE", f"/me/codes/{created.json()['id']}")
        return created

    async def _join(self, member: Member) -> httpx.Response:
        found = await look_up(self.client, member.email)
        code = {"referral_code": found.json()["code"]} if found.is_success else {}
        return await register(self.client, **code)

    async def _get_qr_code(self, member: Member) -> httpx.Response:
        found = await member.request("GET", "/me/codes/active")
        if not found.is_success:
            return found
        return await member.request("GET", f"/me/codes/{found.json()['id']}/qr.svg")

    async def _register_and_delete(self) -> httpx.Response:
        member = await join(self.client)
        await member.request("POST", "/auth/email/verification")
        return await member.request("DELETE", "/me", json={"password": PASSWORD})


def run(minutes: float) -> ScenarioReport:
    """Run the service and a worker under half of their capacity."""
    report = ScenarioReport()
    settings = {"access_token_minutes": "60", "limit_mail": "off"}
    with (
        make_testbed() as testbed,
        testbed.service(**settings) as service,
        testbed.worker(**settings),
    ):
        asyncio.run(_soak(report, testbed, service, minutes * 60))
    return report


async def _soak(report: ScenarioReport, testbed: Testbed, service: Service, seconds: float) -> None:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, limits=limits) as client:
        members = [await join(client) for _ in range(MEMBERS)]
        load = Load(client, members)
        rate = await _capacity(load)
        load.durations.clear()
        sampling = asyncio.create_task(_sample(testbed, service, seconds))
        await _send_at_rate(load, rate * SHARE, seconds)
        readings = await sampling
    report.record(
        capacity_a_second=rate,
        sent_a_second=len(load.durations) / seconds,
        responses=dict(load.statuses),
        p50=statistics.median(load.durations),
        p99=statistics.quantiles(load.durations, n=100)[98],
        failures=dict(load.failures),
    )
    report.check(holds=not load.failures, promise="no request fails")
    for name, allowed in MAX_RISE.items():
        values = [(time_, reading[name]) for time_, reading in readings]
        rise = _rise(values[len(values) // 2 :])
        report.record(**{name: f"{values[0][1]:.0f} to {values[-1][1]:.0f}, line {rise:+.1f}"})
        report.check(holds=rise <= allowed, promise=f"{name} is flat")


async def _capacity(load: Load) -> float:
    end, sent = time.monotonic() + MEASURING_SECONDS, 0

    async def send_until_end() -> None:
        nonlocal sent
        while time.monotonic() < end:
            await load.send()
            sent += 1

    await asyncio.gather(*(send_until_end() for _ in range(CONNECTIONS // 2)))
    return sent / MEASURING_SECONDS


async def _send_at_rate(load: Load, rate: float, seconds: float) -> None:
    """Send requests at a rate, whether or not the responses keep up."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(load.send())


async def _sample(
    testbed: Testbed, service: Service, seconds: float
) -> list[tuple[float, dict[str, float]]]:
    readings, began = [], time.monotonic()
    process = find_worker(service)
    while (at := time.monotonic() - began) < seconds:
        readings.append((at, await _read_usage(testbed, process)))
        await asyncio.sleep(EVERY_SECONDS)
    return readings


async def _read_usage(testbed: Testbed, process: int) -> dict[str, float]:
    async with testbed.connection() as connection:
        postgres = await connection.fetchval("SELECT count(*) FROM pg_stat_activity")
    with Redis(port=testbed.redis.port) as redis:
        clients = redis.info("clients")["connected_clients"]
    return {
        "memory_mb": memory_usage(process).rss_mb,
        "file_handles": open_file_count(process),
        "postgres": postgres,
        "redis": clients,
    }


def _rise(values: list[tuple[float, float]]) -> float:
    """Return the rise of the regression line from the first to the last value."""
    times, readings = zip(*values, strict=True)
    slope = statistics.linear_regression(times, readings).slope
    return float(slope * (times[-1] - times[0]))


def main() -> None:
    """Run the soak test; exit with 1 if something grew or failed."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    began = time.monotonic()
    report = run(minutes)
    report.show("soak", time.monotonic() - began)
    sys.exit(bool(report.violations))


if __name__ == "__main__":
    main()
