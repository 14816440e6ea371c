"""Load: wrk measures the rate, a paced client the duration of each request."""

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass

SECONDS = int(os.environ.get("BENCH_SECONDS", "4"))
CONNECTIONS = 32
TIMEOUT_OPTION = "--timeout=20s"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Measurement:
    """Requests per second, duration and CPU time of the process per request, in ms."""

    rate: float
    p50: float
    p99: float
    cpu: float = 0.0


def run_wrk(
    url: str,
    script: str = "",
    *,
    threads: int = 1,
    connections: int = CONNECTIONS,
    seconds: float = SECONDS,
    allow_errors: bool = False,
) -> Measurement:
    """Send requests as fast as they are answered; a Lua script can make them."""
    command = [
        shutil.which("wrk") or "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{seconds:.0f}",
        TIMEOUT_OPTION,
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        if script:
            command += ["-s", file.name]
        result = subprocess.run(  # noqa: S603 - a fixed command
            [*command, "--latency", url], capture_output=True, text=True, check=True
        )
    error_words = ("Socket errors", "unexpected") if allow_errors else ("Socket errors", "Non-2xx")
    if any(word in result.stdout for word in error_words):
        raise RuntimeError(result.stdout)
    return Measurement(
        float(_find(r"Requests/sec:\s+([\d.]+)", result.stdout)[0]),
        _milliseconds("50%", result.stdout),
        _milliseconds("99%", result.stdout),
    )


async def run_at_rate(port: int, path: str, rate: int, seconds: float) -> Measurement:
    """Send `rate` requests a second, whether or not responses keep up; expects status 200."""
    idle_connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
        asyncio.Queue()
    )
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    durations: list[float] = []

    async def send(due: float) -> None:
        reader, writer = await (
            idle_connections.get()
            if idle_connections.qsize()
            else asyncio.open_connection("127.0.0.1", port)
        )
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        await reader.readexactly(int(_find(r"content-length: (\d+)", head.decode())[0]))
        durations.append((time.perf_counter() - due) * 1000)
        idle_connections.put_nowait((reader, writer))

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(due))
    while idle_connections.qsize():
        idle_connections.get_nowait()[1].close()
    return summarize(durations, time.perf_counter() - started)


def summarize(durations: list[float], seconds: float) -> Measurement:
    """Summarize the durations of requests in milliseconds."""
    cuts = statistics.quantiles(durations, n=100)
    return Measurement(len(durations) / seconds, cuts[49], cuts[98])


def _milliseconds(share: str, text: str) -> float:
    value, unit = _find(rf"{share}\s+([\d.]+)(us|ms|s)\b", text)
    return float(value) * UNITS[unit]


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(text)
    return found.groups()
