"""What is measured, and the limit of the machine beside each."""

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from referral.adapters.passwords import HASHER, THREADS
from tests.journey import API, PASSWORD, join, register
from tests.processes import Service, free_port

SECONDS = 5
CONNECTIONS = 32
REGISTERING = 8
"""As many at once as a small service sees on a bad day; more would only wait for a hash."""

UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Measured:
    """How many a second, and how long one took, in milliseconds."""

    rate: float
    p50: float
    p99: float


async def prepare(service: Service) -> tuple[str, str]:
    """Make an account with a code; return the path of its look-up and the answer."""
    async with httpx.AsyncClient(base_url=service.url) as client:
        owner = await join(client)
        await owner.issue()
        path = f"{API}/codes/lookup?email={owner.email}"
        return path, (await client.get(path)).text


@contextmanager
def bare(body: str, log: Path) -> Iterator[Service]:
    """Run the handler that only answers."""
    port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tests.performance.bare", str(port)],
            env=os.environ | {"BARE_BODY": body},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, f"http://127.0.0.1:{port}", log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()


def load(url: str) -> Measured:
    """Ask for a URL as fast as it is answered."""
    command = [shutil.which("wrk") or "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "--latency"]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(done.stdout)
    return Measured(
        float(_find(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]),
        _milliseconds("50%", done.stdout),
        _milliseconds("99%", done.stdout),
    )


async def registrations(service: Service) -> Measured:
    """Register new addresses, several at once."""
    async with httpx.AsyncClient(base_url=service.url) as client:

        async def one() -> None:
            (await register(client)).raise_for_status()

        return await _repeat(one, REGISTERING)


async def hashes() -> Measured:
    """Hash passwords in as many threads as the service does, and do nothing else."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        return await _repeat(lambda: loop.run_in_executor(pool, HASHER.hash, PASSWORD), THREADS)


async def _repeat(one: Callable[[], Awaitable[object]], at_once: int) -> Measured:
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def again() -> None:
        while (began := time.perf_counter()) < end:
            await one()
            took.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(again() for _ in range(at_once)))
    cuts = statistics.quantiles(took, n=100)
    return Measured(len(took) / (time.perf_counter() - began), cuts[49], cuts[98])


def _milliseconds(share: str, text: str) -> float:
    value, unit = _find(rf"{share}\s+([\d.]+)(us|ms|s)\b", text)
    return float(value) * UNITS[unit]


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(text)
    return found.groups()
