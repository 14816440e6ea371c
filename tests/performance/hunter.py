"""What registrations notice of an EmailHunter that is gone: `python -m tests.performance.hunter`.

Prints the p99 with a server that takes connections and says nothing, once the breaker is open, and
that of a service which verifies nothing, both measured in turn within one run.
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
EACH = 5
WARM_UP = 20
PACE = 0.02
"""Seconds from one registration to the next: a load under which nothing queues."""


def main() -> None:
    """Measure."""
    hole = BlackHole(free_port())
    dead = {"hunter_url": f"http://127.0.0.1:{hole.port}", "hunter_api_key": "none"}
    with (
        tempfile.TemporaryDirectory(prefix="referral-hunter-") as home,
        running_service(Path(home) / "none", **LIMITS) as none,
        running_service(Path(home) / "dead", **LIMITS, **dead) as gone,
    ):
        times = asyncio.run(measure([none.url, gone.url]))
    hole.close()
    none_p99, gone_p99 = (statistics.quantiles(one, n=100)[98] for one in times)
    none_p50, gone_p50 = (statistics.median(one) for one in times)
    figures = {
        "registrations each": ROUNDS * EACH,
        "p50 without verification, ms": round(1000 * none_p50, 1),
        "p50 with a dead EmailHunter, ms": round(1000 * gone_p50, 1),
        "p99 without verification, ms": round(1000 * none_p99, 1),
        "p99 with a dead EmailHunter, ms": round(1000 * gone_p99, 1),
        "p99, ratio (at most 1.1)": round(gone_p99 / none_p99, 2),
    }
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


async def measure(urls: list[str]) -> list[list[float]]:
    """Register with one service and the other, in turn, and return how long each took."""
    times: list[list[float]] = [[] for _ in urls]
    clients = [httpx.AsyncClient(base_url=url) for url in urls]
    for client in clients:
        for _ in range(WARM_UP):
            await time_one(client)
    for number in range(ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        for place in order:
            times[place] += [await time_one(clients[place]) for _ in range(EACH)]
    for client in clients:
        await client.aclose()
    return times


async def time_one(client: httpx.AsyncClient) -> float:
    """Register someone, and keep the pace."""
    began = time.perf_counter()
    answer = await register(client)
    took = time.perf_counter() - began
    answer.raise_for_status()
    await asyncio.sleep(max(0.0, PACE - took))
    return took


if __name__ == "__main__":
    main()
