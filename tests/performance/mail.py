"""How fast mail is: `python -m tests.performance.mail` prints the figures as JSON.

From the commit to the SMTP server; through one worker into a sink; and what registrations notice
of an SMTP server that says nothing, as a ratio within one run.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
from msgspec.structs import replace

from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.core.entities.jobs import ConfirmationMailJob, WelcomeMailJob
from referral.settings import Settings
from tests.support.api_client import new_email, register
from tests.support.fakes.ports import FakeFingerprinter
from tests.support.process_stats import cpu_seconds
from tests.support.service_process import free_port, running_service
from tests.support.smtp_sink import BlackHole, SmtpSink, run_smtp_sink
from tests.support.waiting import wait_until
from tests.support.worker_process import (
    enqueue_mails,
    start_worker,
    stop_worker,
    temporary_settings,
)

MAILS = 3000
WARM = 200
"""Mails before the measured ones, while the worker makes its connections."""

TIMED = 200
ROUNDS = 10
REGISTRATIONS = 60
"""How many times SMTP answers and then says nothing, and registrations in each of both."""

PACE = 0.05
"""Seconds from one registration to the next: a load under which nothing queues."""


def main() -> None:
    """Measure."""
    with temporary_settings() as settings:
        figures = asyncio.run(measure(settings))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


async def measure(settings: Settings) -> dict[str, float]:
    """Measure one after the other."""
    return {
        **await time_mails(settings),
        **await count_mails(settings, "welcome", WelcomeMailJob),
        **await count_mails(settings, "confirmation", ConfirmationMailJob),
        **await compare_registrations(),
    }


async def time_mails(settings: Settings) -> dict[str, float]:
    """Time mails one by one, from after the commit to the end of the data at the server."""
    committed: dict[str, float] = {}
    with run_smtp_sink() as sink, working(replace(settings, smtp_url=sink.url)):
        async with databases(settings) as database:
            for number in range(TIMED + 20):
                email = f"timed{number}@example.com"
                await enqueue_mails(settings, database, [email])
                committed[email] = time.time()
                await wait_until(lambda email=email: sink.mails_to(email))  # type: ignore[misc]
        took = sorted((mail.received_at - committed[mail.to]) * 1000 for mail in sink.received[20:])
    return {
        "commit to SMTP, median ms": round(statistics.median(took), 1),
        "commit to SMTP, p99 ms": round(took[int(len(took) * 0.99)], 1),
    }


async def count_mails(
    settings: Settings, name: str, kind: type[WelcomeMailJob | ConfirmationMailJob]
) -> dict[str, float]:
    """Count how many of a backlog go through one worker in a second, and what one costs it."""
    emails = [f"{name}{number}@example.com" for number in range(WARM + MAILS)]
    async with databases(settings) as database:
        await enqueue_mails(settings, database, emails, kind)
    with run_smtp_sink() as sink, working(replace(settings, smtp_url=sink.url)) as worker:
        await wait_until(lambda: len(sink.received) >= WARM, 120)
        began, before = time.perf_counter(), (cpu_seconds(worker.pid or 0), len(sink.received))
        await wait_until(lambda: len(sink.received) == len(emails), 120)
        took = time.perf_counter() - began
        mails = len(emails) - before[1]
        spent = cpu_seconds(worker.pid or 0) - before[0]
    return {
        f"{name} mails per second": round(mails / took),
        f"{name} mail, ms of the worker's core": round(spent / mails * 1000, 2),
        f"{name} mails, share of a core that the worker got": round(spent / took, 2),
    }


async def compare_registrations() -> dict[str, float]:
    """Compare registrations while SMTP answers and while it says nothing, in turns.

    Two services stand side by side, so that what else the machine does hits both alike.
    """
    took: dict[str, list[float]] = {"answering": [], "silent": []}
    sink, hole = SmtpSink(free_port()), BlackHole(silent_port := free_port())
    sink.start()
    async with serving(sink.url) as answering, serving(f"smtp://127.0.0.1:{silent_port}") as silent:
        services = {"answering": answering, "silent": silent}
        await time_registrations(services, took, 10)
        took = {name: [] for name in took}
        for _ in range(ROUNDS):
            await time_registrations(services, took, REGISTRATIONS)
        hole.close()
        late = SmtpSink(silent_port)
        late.start()
        mails = ROUNDS * REGISTRATIONS + 10
        await wait_until(lambda: len(sink.received) == len(late.received) == mails, 180)
    sink.stop()
    late.stop()
    return ratios(took)


async def time_registrations(
    services: dict[str, httpx.AsyncClient], took: dict[str, list[float]], number: int
) -> None:
    """Time so many registrations with each service, at a pace that leaves the machine idle."""
    for name, client in services.items():
        for _ in range(number):
            began = time.perf_counter()
            (await register(client, new_email())).raise_for_status()
            took[name].append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(PACE)


def ratios(took: dict[str, list[float]]) -> dict[str, float]:
    """Compare the median and the slowest of a hundred."""
    told: dict[str, float] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        normal, silent = (sorted(one)[int(len(one) * share)] for one in took.values())
        told |= {
            f"registration, {name} ms": round(normal, 1),
            f"registration with SMTP black-holed, {name} ms": round(silent, 1),
            f"ratio of {name}": round(silent / normal, 2),
        }
    return told


@asynccontextmanager
async def serving(smtp_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A service with a database of its own."""
    with tempfile.TemporaryDirectory(prefix="referral-", ignore_cleanup_errors=True) as folder:
        told = {"smtp_url": smtp_url, "log_level": "error"}
        with running_service(Path(folder) / "data", **told) as service:
            async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
                yield client


@asynccontextmanager
async def databases(settings: Settings) -> AsyncIterator[PostgresDatabase]:
    """The adapter that enqueues."""
    engine = make_engine(settings.database_url or "", command_timeout=None)
    yield PostgresDatabase(engine, FakeFingerprinter())
    await engine.dispose()


@contextmanager
def working(settings: Settings) -> Iterator[BaseProcess]:
    """One worker, in a process of its own."""
    worker = start_worker(settings)
    yield worker
    stop_worker(worker)


if __name__ == "__main__":
    main()
