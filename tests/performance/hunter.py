"""The effect of a dead EmailHunter on registrations: `python -m tests.performance.hunter`.

Prints the p99 with a server that accepts connections and never responds, after the breaker has
opened, and the p99 without verification, both measured in turns in one run.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.performance.testbed import LIMITS
from tests.support.api_client import register
from tests.support.service_process import free_port, running_service
from tests.support.smtp_sink import BlackHole

ROUNDS = 200
REGISTRATIONS_PER_ROUND = 5
WARM_UP = 20
PACE_SECONDS = 0.02
"""Seconds between registrations, a load without queueing."""


def main() -> None:
    """Run the benchmark and print the figures as JSON."""
    hole = BlackHole(free_port())
    dead_settings = {"hunter_url": f"http://127.0.0.1:{hole.port}", "hunter_api_key": "none"}
    with (
        tempfile.TemporaryDirectory(prefix="referral-hunter-") as home,
        running_service(Path(home) / "none", **LIMITS) as without,
        running_service(Path(home) / "dead", **LIMITS, **dead_settings) as with_dead,
    ):
        times = asyncio.run(measure([without.url, with_dead.url]))
    hole.close()
    none_p99, gone_p99 = (statistics.quantiles(one, n=100)[98] for one in times)
    none_p50, gone_p50 = (statistics.median(one) for one in times)
    figures = {
        "registrations each": ROUNDS * REGISTRATIONS_PER_ROUND,
        "p50 without verification, ms": round(1000 * none_p50, 1),
        "p50 with a dead EmailHunter, ms": round(1000 * gone_p50, 1),
        "p99 without verification, ms": round(1000 * none_p99, 1),
        "p99 with a dead EmailHunter, ms": round(1000 * gone_p99, 1),
        "p99, ratio (at most 1.1)": round(gone_p99 / none_p99, 2),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


async def measure(urls: list[str]) -> list[list[float]]:
    """Register with each service in turns; return the durations."""
    times: list[list[float]] = [[] for _ in urls]
    clients = [httpx.AsyncClient(base_url=url) for url in urls]
    for client in clients:
        for _ in range(WARM_UP):
            await time_registration(client)
    for number in range(ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        for index in order:
            times[index] += [
                await time_registration(clients[index]) for _ in range(REGISTRATIONS_PER_ROUND)
            ]
    for client in clients:
        await client.aclose()
    return times


async def time_registration(client: httpx.AsyncClient) -> float:
    """Register a user at the pace; return the duration in seconds."""
    started = time.perf_counter()
    response = await register(client)
    duration = time.perf_counter() - started
    response.raise_for_status()
    await asyncio.sleep(max(0.0, PACE_SECONDS - duration))
    return duration


if __name__ == "__main__":
    main()
