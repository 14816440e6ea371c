"""Steady load for a long time: `python -m tests.faults.soak [MINUTES]`, 10 by default.

First it is measured how many requests a second the service answers with all routes mixed; then it
gets half as many. Memory, file handles and the connections of PostgreSQL and Redis are read every
few seconds. They are flat when the straight line through the later half of the readings hardly
rises; no request may fail.
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
"""What the mixture itself brings about: a code that was replaced by somebody else in between."""

MAX_RISE = {"memory_mb": 5.0, "file_handles": 8.0, "postgres": 4.0, "redis": 4.0}
"""By how much the line may rise from the middle to the end. What fills up once, such as a cache or
a pool of connections, has done so before.
"""


@dataclass
class Load:
    """Members who do everything that can be done, over and over."""

    client: httpx.AsyncClient
    members: list[Member]
    answers: Counter[int] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    def choose(self) -> Awaitable[httpx.Response]:
        """Pick the next request; what costs a hash comes seldom."""
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
            (2, lambda: self._picture(member)),
            (1, lambda: member.request("GET", "/me/export")),
            (1, self._come_and_go),
        ]
        weights = [weight for weight, _ in kinds]
        return random.choices(kinds, weights)[0][1]()  # noqa: S311 - no secret

    async def ask(self) -> None:
        """Send one, and take down how it went."""
        began = time.monotonic()
        try:
            status = (await self.choose()).status_code
        except httpx.TransportError as error:
            self.bad[type(error).__name__] += 1
            return
        self.waits.append(time.monotonic() - began)
        self.answers[status] += 1
        if status >= 400 and status not in REFUSALS:
            self.bad[str(status)] += 1

    async def _replace(self, member: Member) -> httpx.Response:
        wanted = {"lifetime_minutes": 60, "replace": True}
        made = await member.request("POST", "/me/codes", json=wanted)
        if made.is_success and random.random() < 0.3:  # noqa: S311 - no secret
            return await member.request("DELETE", f"/me/codes/{made.json()['id']}")
        return made

    async def _join(self, member: Member) -> httpx.Response:
        found = await look_up(self.client, member.email)
        code = {"referral_code": found.json()["code"]} if found.is_success else {}
        return await register(self.client, **code)

    async def _picture(self, member: Member) -> httpx.Response:
        found = await member.request("GET", "/me/codes/active")
        if not found.is_success:
            return found
        return await member.request("GET", f"/me/codes/{found.json()['id']}/qr.svg")

    async def _come_and_go(self) -> httpx.Response:
        gone = await join(self.client)
        await gone.request("POST", "/auth/email/verification")
        return await gone.request("DELETE", "/me", json={"password": PASSWORD})


def run(minutes: float) -> ScenarioReport:
    """Run the service and its worker under half of the load that they bear."""
    figures = ScenarioReport()
    settings = {"access_token_minutes": "60", "limit_mail": "off"}
    with make_testbed() as place, place.service(**settings) as service, place.worker(**settings):
        asyncio.run(_soak(figures, place, service, minutes * 60))
    return figures


async def _soak(figures: ScenarioReport, place: Testbed, service: Service, seconds: float) -> None:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, limits=limits) as client:
        members = [await join(client) for _ in range(MEMBERS)]
        load = Load(client, members)
        rate = await _capacity(load)
        load.waits.clear()
        watching = asyncio.create_task(_watch(place, service, seconds))
        await _keep_up(load, rate * SHARE, seconds)
        readings = await watching
    figures.record(
        capacity_a_second=rate,
        asked_a_second=len(load.waits) / seconds,
        answers=dict(load.answers),
        p50=statistics.median(load.waits),
        p99=statistics.quantiles(load.waits, n=100)[98],
        bad=dict(load.bad),
    )
    figures.check(holds=not load.bad, promise="no request fails")
    for name, allowed in MAX_RISE.items():
        values = [(at, reading[name]) for at, reading in readings]
        rise = _rise(values[len(values) // 2 :])
        figures.record(**{name: f"{values[0][1]:.0f} to {values[-1][1]:.0f}, line {rise:+.1f}"})
        figures.check(holds=rise <= allowed, promise=f"{name} is flat")


async def _capacity(load: Load) -> float:
    over, asked = time.monotonic() + MEASURING_SECONDS, 0

    async def keep_asking() -> None:
        nonlocal asked
        while time.monotonic() < over:
            await load.ask()
            asked += 1

    await asyncio.gather(*(keep_asking() for _ in range(CONNECTIONS // 2)))
    return asked / MEASURING_SECONDS


async def _keep_up(load: Load, rate: float, seconds: float) -> None:
    """Ask so many times a second, whether or not the answers keep up."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(load.ask())


async def _watch(
    place: Testbed, service: Service, seconds: float
) -> list[tuple[float, dict[str, float]]]:
    readings, began = [], time.monotonic()
    process = find_worker(service)
    while (at := time.monotonic() - began) < seconds:
        readings.append((at, await _read(place, process)))
        await asyncio.sleep(EVERY_SECONDS)
    return readings


async def _read(place: Testbed, process: int) -> dict[str, float]:
    async with place.connection() as connection:
        postgres = await connection.fetchval("SELECT count(*) FROM pg_stat_activity")
    with Redis(port=place.redis.port) as redis:
        clients = redis.info("clients")["connected_clients"]
    return {
        "memory_mb": memory_usage(process).rss_mb,
        "file_handles": open_file_count(process),
        "postgres": postgres,
        "redis": clients,
    }


def _rise(values: list[tuple[float, float]]) -> float:
    """Return by how much the line through the values rises from the first to the last."""
    times, readings = zip(*values, strict=True)
    slope = statistics.linear_regression(times, readings).slope
    return float(slope * (times[-1] - times[0]))


def main() -> None:
    """Soak, print the figures, and end with 1 if something grew or failed."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    began = time.monotonic()
    figures = run(minutes)
    figures.show("soak", time.monotonic() - began)
    sys.exit(bool(figures.violations))


if __name__ == "__main__":
    main()
