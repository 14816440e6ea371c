"""PostgreSQL restarted, killed, stopped, cut off, slow, and its connections used up (row 29)."""

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

PHASE_SECONDS = 4.0
MAX_RESPONSE_SECONDS = 3.0
"""`1 s or so`: a wait for a place, one for a connection, and room for a busy machine."""

MAX_RECOVERY_SECONDS = 5.0
EXPECTED_STATUSES = {200, 201, 204, 503}
TERMINATE_SQL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'referral'"
)


@dataclass(frozen=True)
class Fault:
    """A way for PostgreSQL to go wrong: how it begins, and how it ends."""

    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


def run() -> ScenarioReport:
    """Have a crowd at work while PostgreSQL is in trouble."""
    figures = ScenarioReport()
    with make_testbed() as place:
        folder = place.folder / "proxy"
        folder.mkdir()
        socket = ".s.PGSQL.5432"
        there = place.database.url.partition("host=")[2]
        proxy = Proxy(folder / socket, Path(there) / socket)
        proxy.start()
        with place.service(database_url=place.database.url.replace(there, str(folder))) as service:
            asyncio.run(_trouble(figures, place, proxy, service.url))
        proxy.stop()
    return figures


async def _trouble(figures: ScenarioReport, place: Testbed, proxy: Proxy, url: str) -> None:
    async with run_workload(url, size=6) as people:
        await asyncio.sleep(2)
        for name, trouble in _troubles(place, proxy).items():
            began = time.monotonic()
            await trouble.begin()
            await asyncio.sleep(PHASE_SECONDS)
            await trouble.end()
            back = await _until_back(people)
            seen = people.between(began)
            figures.record(**{f"{name}": _told(seen, back)})
            figures.check(
                holds=back < MAX_RECOVERY_SECONDS,
                promise=f"{name}: back within 5 s, and not {back:.1f}",
            )
            figures.check(
                holds=percentile(seen, 1) < MAX_RESPONSE_SECONDS,
                promise=f"{name}: an answer in a second or so",
            )
    _judge(figures, people)
    async with place.connection() as connection:
        lost = await people.find_lost_writes(connection)
    figures.record(
        acknowledged=people.count_acknowledged, found=people.count_acknowledged - lost, lost=lost
    )
    figures.check(holds=lost == 0, promise="every acknowledged write is there")


def _judge(figures: ScenarioReport, people: Workload) -> None:
    figures.record(
        requests=len(people.requests),
        statuses=count_statuses(people.requests),
        faults=people.errors,
    )
    figures.check(
        holds={each.status for each in people.requests} <= EXPECTED_STATUSES,
        promise="503 and nothing else, and an answer to every request",
    )
    figures.check(
        holds=not people.errors["503 without Retry-After"], promise="every 503 has Retry-After"
    )


def _told(seen: list[RequestRecord], back: float) -> str:
    counted = count_statuses(seen)
    worst, gap = (
        percentile(seen, 1),
        longest_outage(each for each in seen if each.kind != "look up"),
    )
    return f"{counted}, worst {worst:.2f} s, outage {gap:.1f} s, back after {back:.2f} s"


async def _until_back(people: Workload) -> float:
    """Wait until each member has had an answer of the service in health, and say how long."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        with suppress(httpx.TransportError):
            answers = [await member.request("GET", "/me") for member in people.members]
            if all(answer.is_success for answer in answers):
                return asked - began
        await asyncio.sleep(0.02)


def _troubles(place: Testbed, proxy: Proxy) -> dict[str, Fault]:
    async def nothing() -> None:
        pass

    async def stop() -> None:
        await asyncio.to_thread(place.database.stop)

    async def start() -> None:
        await asyncio.to_thread(place.database.start)

    async def restart() -> None:
        await stop()
        await start()

    async def kill() -> None:
        """End all of it by kill -9; whoever watches over it starts it again."""
        _signal(await _processes(place), signal.SIGKILL)
        watcher = EmbeddedPostgres(place.folder / "postgres")
        await asyncio.to_thread(watcher.start)
        await asyncio.to_thread(watcher.stop)

    return {
        "restarted": Fault(restart, nothing),
        "stopped": Fault(stop, start),
        "killed": Fault(kill, nothing),
        "terminated_in_a_loop": _terminating(place),
        "frozen": _freezing(place),
        "silent": Fault(*_silence(proxy)),
        "slow_by_50_ms": Fault(*_latency(proxy)),
        "reset": Fault(_cut(proxy), nothing),
        "used_up_by_locks": _locking(place),
    }


def _terminating(place: Testbed) -> Fault:
    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def loop() -> None:
        async with place.connection() as connection:
            while not over.is_set():
                await connection.execute(TERMINATE_SQL)
                await asyncio.sleep(0.05)

    async def begin() -> None:
        tasks.append(asyncio.create_task(loop()))

    async def end() -> None:
        over.set()
        await tasks[0]

    return Fault(begin, end)


def _freezing(place: Testbed) -> Fault:
    frozen: list[int] = []

    async def begin() -> None:
        frozen.extend(await _processes(place))
        _signal(frozen, signal.SIGSTOP)

    async def end() -> None:
        _signal(frozen, signal.SIGCONT)

    return Fault(begin, end)


def _locking(place: Testbed) -> Fault:
    """Hold the rows of all users: whoever writes waits, until no connection is free."""
    held: list[asyncpg.Connection] = []

    async def begin() -> None:
        held.append(await asyncpg.connect(place.database.url))
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


async def _processes(place: Testbed) -> list[int]:
    """Return the server's processes, its first one before the others."""
    async with place.connection() as connection:
        first = "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"
        rows = await connection.fetch("SELECT pid FROM pg_stat_activity")
        own = connection.get_server_pid()
        return [await connection.fetchval(first), *(r["pid"] for r in rows if r["pid"] != own)]


def _signal(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
