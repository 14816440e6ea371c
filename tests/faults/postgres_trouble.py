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
from tests.faults.crowd import Crowd, Seen, crowd, outage, percentile, statuses
from tests.faults.figures import Figures
from tests.faults.place import Place, a_place
from tests.faults.proxy import Proxy

PHASE_SECONDS = 4.0
ANSWER_SECONDS = 3.0
"""`1 s or so`: a wait for a place, one for a connection, and room for a busy machine."""

BACK_SECONDS = 5.0
UNDERSTOOD = {200, 201, 204, 503}
OURS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'referral'"


@dataclass(frozen=True)
class Trouble:
    """A way for PostgreSQL to go wrong: how it begins, and how it ends."""

    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


def run() -> Figures:
    """Have a crowd at work while PostgreSQL is in trouble."""
    figures = Figures()
    with a_place() as place:
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


async def _trouble(figures: Figures, place: Place, proxy: Proxy, url: str) -> None:
    async with crowd(url, size=6) as people:
        await asyncio.sleep(2)
        for name, trouble in _troubles(place, proxy).items():
            began = time.monotonic()
            await trouble.begin()
            await asyncio.sleep(PHASE_SECONDS)
            await trouble.end()
            back = await _until_back(people)
            seen = people.between(began)
            figures.count(**{f"{name}": _told(seen, back)})
            figures.promise(
                holds=back < BACK_SECONDS, that=f"{name}: back within 5 s, and not {back:.1f}"
            )
            figures.promise(
                holds=percentile(seen, 1) < ANSWER_SECONDS,
                that=f"{name}: an answer in a second or so",
            )
    _judge(figures, people)
    async with place.connection() as connection:
        lost = await people.missing(connection)
    figures.count(acknowledged=people.acknowledged, found=people.acknowledged - lost, lost=lost)
    figures.promise(holds=lost == 0, that="every acknowledged write is there")


def _judge(figures: Figures, people: Crowd) -> None:
    figures.count(requests=len(people.seen), statuses=statuses(people.seen), faults=people.faults)
    figures.promise(
        holds={each.status for each in people.seen} <= UNDERSTOOD,
        that="503 and nothing else, and an answer to every request",
    )
    figures.promise(
        holds=not people.faults["503 without Retry-After"], that="every 503 has Retry-After"
    )


def _told(seen: list[Seen], back: float) -> str:
    counted = statuses(seen)
    worst, gap = percentile(seen, 1), outage(each for each in seen if each.what != "look up")
    return f"{counted}, worst {worst:.2f} s, outage {gap:.1f} s, back after {back:.2f} s"


async def _until_back(people: Crowd) -> float:
    """Wait until each member has had an answer of the service in health, and say how long."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        with suppress(httpx.TransportError):
            answers = [await member.request("GET", "/me") for member in people.members]
            if all(answer.is_success for answer in answers):
                return asked - began
        await asyncio.sleep(0.02)


def _troubles(place: Place, proxy: Proxy) -> dict[str, Trouble]:
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
        "restarted": Trouble(restart, nothing),
        "stopped": Trouble(stop, start),
        "killed": Trouble(kill, nothing),
        "terminated_in_a_loop": _terminating(place),
        "frozen": _freezing(place),
        "silent": Trouble(*_silence(proxy)),
        "slow_by_50_ms": Trouble(*_latency(proxy)),
        "reset": Trouble(_cut(proxy), nothing),
        "used_up_by_locks": _locking(place),
    }


def _terminating(place: Place) -> Trouble:
    over = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def loop() -> None:
        async with place.connection() as connection:
            while not over.is_set():
                await connection.execute(OURS)
                await asyncio.sleep(0.05)

    async def begin() -> None:
        tasks.append(asyncio.create_task(loop()))

    async def end() -> None:
        over.set()
        await tasks[0]

    return Trouble(begin, end)


def _freezing(place: Place) -> Trouble:
    frozen: list[int] = []

    async def begin() -> None:
        frozen.extend(await _processes(place))
        _signal(frozen, signal.SIGSTOP)

    async def end() -> None:
        _signal(frozen, signal.SIGCONT)

    return Trouble(begin, end)


def _locking(place: Place) -> Trouble:
    """Hold the rows of all users: whoever writes waits, until no connection is free."""
    held: list[asyncpg.Connection] = []

    async def begin() -> None:
        held.append(await asyncpg.connect(place.database.url))
        await held[0].execute("BEGIN")
        await held[0].execute("LOCK TABLE users, codes IN ACCESS EXCLUSIVE MODE")

    async def end() -> None:
        await held[0].execute("ROLLBACK")
        await held[0].close()

    return Trouble(begin, end)


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


async def _processes(place: Place) -> list[int]:
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
