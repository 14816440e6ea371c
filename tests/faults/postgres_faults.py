"""PostgreSQL restarted, killed, stopped, cut off, slow, and out of connections (row 29)."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx

from referral.adapters.postgres.embedded import EmbeddedPostgres
from tests.faults.proxy import Proxy
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import (
    RequestRecord,
    Workload,
    count_statuses,
    longest_outage,
    percentile,
    run_workload,
)
from tests.support.waiting import wait_for_value

PHASE_SECONDS = 4.0
MAX_RESPONSE_SECONDS = 3.0
"""The promise of about 1.5 s, or 2.5 s with a wait for a connection, and a margin."""

MAX_RECOVERY_SECONDS = 5.0
EXPECTED_STATUSES = {200, 201, 204, 503}
TERMINATE_SQL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'referral'"
)


@dataclass(frozen=True)
class Fault:
    """A fault of PostgreSQL: how to begin it, and how to end it."""

    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


def run() -> ScenarioReport:
    """Run a workload while PostgreSQL has faults."""
    report = ScenarioReport()
    with make_testbed() as testbed:
        folder = testbed.folder / "proxy"
        folder.mkdir()
        socket = ".s.PGSQL.5432"
        socket_folder = testbed.database.url.partition("host=")[2]
        proxy = Proxy(folder / socket, Path(socket_folder) / socket)
        proxy.start()
        with testbed.service(
            database_url=testbed.database.url.replace(socket_folder, str(folder))
        ) as service:
            asyncio.run(_inject_faults(report, testbed, proxy, service.url))
        proxy.stop()
    return report


async def _inject_faults(report: ScenarioReport, testbed: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=6) as workload:
        await workload.warm_up()
        for name, fault in _faults(testbed, proxy).items():
            started = time.monotonic()
            await fault.begin()
            await asyncio.sleep(PHASE_SECONDS)
            await fault.end()
            recovery_seconds = await _wait_until_back(workload)
            requests = workload.between(started)
            report.record(**{f"{name}": _summarize(requests, recovery_seconds)})
            report.check(
                holds=recovery_seconds < MAX_RECOVERY_SECONDS,
                promise=f"{name}: recovery within 5 s, not {recovery_seconds:.1f} s",
            )
            report.check(
                holds=percentile(requests, 1) < MAX_RESPONSE_SECONDS,
                promise=f"{name}: every response within {MAX_RESPONSE_SECONDS:.0f} s",
            )
    _judge(report, workload)
    async with testbed.connection() as connection:
        lost = await workload.count_lost_writes(connection)
    report.record(
        acknowledged=workload.acknowledged_writes,
        found=workload.acknowledged_writes - lost,
        lost=lost,
    )
    report.check(holds=lost == 0, promise="every acknowledged write is stored")


def _judge(report: ScenarioReport, workload: Workload) -> None:
    report.record(
        requests=len(workload.requests),
        statuses=count_statuses(workload.requests),
        faults=workload.errors,
    )
    report.check(
        holds={request.status for request in workload.requests} <= EXPECTED_STATUSES,
        promise="every request gets a success or 503",
    )
    report.check(
        holds=not workload.errors["503 without Retry-After"], promise="every 503 has Retry-After"
    )


def _summarize(requests: list[RequestRecord], recovery_seconds: float) -> str:
    counted = count_statuses(requests)
    worst, outage = (
        percentile(requests, 1),
        longest_outage(request for request in requests if request.kind != "look up"),
    )
    return (
        f"{counted}, worst {worst:.2f} s, outage {outage:.1f} s, "
        f"recovery after {recovery_seconds:.2f} s"
    )


async def _wait_until_back(workload: Workload) -> float:
    """Wait until every member gets a success; return the seconds it took."""
    started = sent = time.monotonic()

    async def is_back() -> bool:
        nonlocal sent
        sent = time.monotonic()
        with suppress(httpx.TransportError):
            responses = [await member.request("GET", "/me") for member in workload.members]
            return all(response.is_success for response in responses)
        return False

    await wait_for_value(is_back)
    return sent - started


def _faults(testbed: Testbed, proxy: Proxy) -> dict[str, Fault]:
    async def do_nothing() -> None:
        pass

    async def stop() -> None:
        await asyncio.to_thread(testbed.database.stop)

    async def start() -> None:
        await asyncio.to_thread(testbed.database.start)

    async def restart() -> None:
        await stop()
        await start()

    async def kill() -> None:
        """Kill all its processes, and start it again as a supervisor would."""
        _signal(await _processes(testbed), signal.SIGKILL)
        supervisor = EmbeddedPostgres(testbed.folder / "postgres")
        await asyncio.to_thread(supervisor.start)
        await asyncio.to_thread(supervisor.stop)

    return {
        "restarted": Fault(restart, do_nothing),
        "stopped": Fault(stop, start),
        "killed": Fault(kill, do_nothing),
        "terminated_in_a_loop": _terminating(testbed),
        "frozen": _freezing(testbed),
        "silent": Fault(*_silence(proxy)),
        "slow_by_50_ms": Fault(*_latency(proxy)),
        "reset": Fault(_cut(proxy), do_nothing),
        "used_up_by_locks": _locking(testbed),
    }


def _terminating(testbed: Testbed) -> Fault:
    stopped = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def loop() -> None:
        async with testbed.connection() as connection:
            while not stopped.is_set():
                await connection.execute(TERMINATE_SQL)
                await asyncio.sleep(0.05)

    async def begin() -> None:
        tasks.append(asyncio.create_task(loop()))

    async def end() -> None:
        stopped.set()
        await tasks[0]

    return Fault(begin, end)


def _freezing(testbed: Testbed) -> Fault:
    frozen: list[int] = []

    async def begin() -> None:
        frozen.extend(await _processes(testbed))
        _signal(frozen, signal.SIGSTOP)

    async def end() -> None:
        _signal(frozen, signal.SIGCONT)

    return Fault(begin, end)


def _locking(testbed: Testbed) -> Fault:
    """Lock the tables, so that writes wait until no connection is free."""
    held: list[asyncpg.Connection] = []

    async def begin() -> None:
        held.append(await asyncpg.connect(testbed.database.url))
        await held[0].execute("BEGIN")
        await held[0].execute("LOCK TABLE users, codes IN ACCESS EXCLUSIVE MODE")

    async def end() -> None:
        await held[0].execute("ROLLBACK")
        await held[0].close()

    return Fault(begin, end)


def _silence(proxy: Proxy) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    async def begin() -> None:
        proxy.is_silent = True

    async def end() -> None:
        proxy.is_silent = False
        await asyncio.to_thread(proxy.reset)

    return begin, end


def _latency(proxy: Proxy) -> tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]:
    async def begin() -> None:
        proxy.latency = 0.05

    async def end() -> None:
        proxy.latency = 0.0

    return begin, end


def _cut(proxy: Proxy) -> Callable[[], Awaitable[None]]:
    async def begin() -> None:
        for _ in range(10):
            await asyncio.to_thread(proxy.reset)
            await asyncio.sleep(0.1)

    return begin


async def _processes(testbed: Testbed) -> list[int]:
    """Return the process ids of the postmaster and its backends."""
    async with testbed.connection() as connection:
        postmaster = "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity")
        own = connection.get_server_pid()
        return [await connection.fetchval(postmaster), *(r["pid"] for r in rows if r["pid"] != own)]


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
