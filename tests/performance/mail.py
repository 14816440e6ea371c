"""How fast mail is: `python -m tests.performance.mail` prints three figures as JSON.

From the commit to the SMTP server; through one worker into a sink; and what registrations notice
of an SMTP server that says nothing, as a ratio within one run.
"""

import asyncio
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import httpx
from msgspec.structs import replace

from referral.adapters.keys import make_key_file
from referral.adapters.logs import set_up_logs
from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.commands import work
from referral.core.jobs import WelcomeMail
from referral.settings import Settings
from tests.journey import new_email, register
from tests.processes import free_port, running
from tests.sink import BlackHole, Sink
from tests.waiting import until

MAILS = 3000
TIMED = 200
REGISTRATIONS = 150
PACE = 0.05
"""Seconds from one registration to the next: a load under which nothing queues."""

_processes = multiprocessing.get_context("spawn")


def main() -> None:
    """Measure."""
    with a_place() as settings:
        figures = asyncio.run(measure(settings))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


async def measure(settings: Settings) -> dict[str, float]:
    """Measure one after the other."""
    return {
        **await time_mails(settings),
        **await count_mails(settings),
        **await compare_registrations(),
    }


async def time_mails(settings: Settings) -> dict[str, float]:
    """Time mails one by one, from after the commit to the end of the data at the server."""
    committed: dict[str, float] = {}
    with sinking() as sink, working(replace(settings, smtp_url=sink.url)):
        async with databases(settings) as database:
            for number in range(TIMED + 20):
                email = f"timed{number}@example.com"
                await enqueue(settings, database, [email])
                committed[email] = time.time()
                await until(lambda email=email: sink.to(email))  # type: ignore[misc]
        took = sorted((mail.at - committed[mail.to]) * 1000 for mail in sink.received[20:])
    return {
        "commit to SMTP, median ms": round(statistics.median(took), 1),
        "commit to SMTP, p99 ms": round(took[int(len(took) * 0.99)], 1),
    }


async def count_mails(settings: Settings) -> dict[str, float]:
    """Count how many of a backlog go through one worker in a second."""
    async with databases(settings) as database:
        await enqueue(
            settings, database, [f"counted{number}@example.com" for number in range(MAILS)]
        )
    with sinking() as sink, working(replace(settings, smtp_url=sink.url)):
        await until(lambda: len(sink.received) == MAILS, 120)
        took = sink.received[-1].at - sink.received[0].at
    return {"mails per second": round((MAILS - 1) / took)}


async def compare_registrations() -> dict[str, float]:
    """Compare registrations while SMTP answers and while it says nothing."""
    answering = await time_registrations(silent=False)
    silent = await time_registrations(silent=True)
    return {
        "registration, p99 ms": answering,
        "registration with SMTP black-holed, p99 ms": silent,
        "ratio": round(silent / answering, 2),
    }


async def time_registrations(*, silent: bool) -> float:
    """Return the p99 of registrations in milliseconds, at a pace that leaves the machine idle."""
    port = free_port()
    hole = BlackHole(port) if silent else None
    sink = Sink(port)
    if not silent:
        sink.start()
    took: list[float] = []
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    told = {"smtp_url": sink.url, "log_level": "error"}
    try:
        with running(folder / "data", **told) as service:
            async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
                for number in range(REGISTRATIONS + 10):
                    began = time.perf_counter()
                    (await register(client, new_email())).raise_for_status()
                    took += [(time.perf_counter() - began) * 1000] * (number >= 10)
                    await asyncio.sleep(PACE)
            if hole is not None:
                hole.close()
                sink.start()
            await until(lambda: len(sink.received) == REGISTRATIONS + 10, 180)
    finally:
        sink.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return round(sorted(took)[int(len(took) * 0.99)], 1)


async def enqueue(settings: Settings, database: PostgresDatabase, emails: list[str]) -> None:
    """Make accounts and queue their welcome mails, many in one transaction."""
    connection = await asyncpg.connect(settings.database_url)
    rows = await connection.fetch(
        "INSERT INTO users SELECT gen_random_uuid(), email, email, 'x', 'member', 'en', false, "
        "true, now() FROM unnest($1::text[]) AS email RETURNING id",
        emails,
    )
    await connection.close()
    async with database.begin() as records:
        await records.jobs.enqueue(*(WelcomeMail(row["id"]) for row in rows))


@asynccontextmanager
async def databases(settings: Settings) -> AsyncIterator[PostgresDatabase]:
    """The adapter that enqueues."""
    engine = make_engine(settings.database_url or "", command_timeout=None)
    yield PostgresDatabase(engine)
    await engine.dispose()


@contextmanager
def sinking() -> Iterator[Sink]:
    """A sink that listens."""
    sink = Sink(free_port())
    sink.start()
    yield sink
    sink.stop()


@contextmanager
def working(settings: Settings) -> Iterator[None]:
    """One worker, in a process of its own."""
    process = _processes.Process(target=_work, args=(settings,))
    process.start()
    yield
    process.terminate()
    process.join()


def _work(settings: Settings) -> None:
    set_up_logs("json", "error")
    work(settings)


@contextmanager
def a_place() -> Iterator[Settings]:
    """A folder with a database of its own, which keeps what it commits as in production."""
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    try:
        migrate(server.url)
        key = folder / "signing.pem"
        make_key_file(key)
        yield Settings(data_dir=folder, database_url=server.url, signing_key_file=str(key))
    finally:
        server.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
