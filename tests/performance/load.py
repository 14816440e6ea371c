"""Load, by wrk where the rate matters, by a paced client where the wait of each request does."""

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
    """How many a second, how long one took, and the CPU time of the process for each, in ms."""

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
    refusals: bool = False,
) -> Measurement:
    """Ask as fast as there are answers; a script in Lua says what is asked."""
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
        done = subprocess.run(  # noqa: S603 - a fixed command
            [*command, "--latency", url], capture_output=True, text=True, check=True
        )
    bad = ("Socket errors", "unexpected") if refusals else ("Socket errors", "Non-2xx")
    if any(word in done.stdout for word in bad):
        raise RuntimeError(done.stdout)
    return Measurement(
        float(_find(r"Requests/sec:\s+([\d.]+)", done.stdout)[0]),
        _milliseconds("50%", done.stdout),
        _milliseconds("99%", done.stdout),
    )


async def run_at_rate(port: int, path: str, rate: int, seconds: float) -> Measurement:
    """Ask `rate` times a second, whether or not the answers keep up; a non-200 is an error."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    took: list[float] = []

    async def ask(due: float) -> None:
        reader, writer = await (
            free.get() if free.qsize() else asyncio.open_connection("127.0.0.1", port)
        )
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        await reader.readexactly(int(_find(r"content-length: (\d+)", head.decode())[0]))
        took.append((time.perf_counter() - due) * 1000)
        free.put_nowait((reader, writer))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(due))
    while free.qsize():
        free.get_nowait()[1].close()
    return summarize(took, time.perf_counter() - began)


def summarize(took: list[float], seconds: float) -> Measurement:
    """Return the figures of requests that took so many milliseconds each."""
    cuts = statistics.quantiles(took, n=100)
    return Measurement(len(took) / seconds, cuts[49], cuts[98])


def _milliseconds(share: str, text: str) -> float:
    value, unit = _find(rf"{share}\s+([\d.]+)(us|ms|s)\b", text)
    return float(value) * UNITS[unit]


def _find(pattern: str, text: str) -> tuple[str, ...]:
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(text)
    return found.groups()
