"""The speed of e-mail: `python -m tests.performance.mail` prints the figures as JSON.

It measures the time from commit to SMTP server, the throughput of one worker, and the effect of a
silent SMTP server on registrations, as a ratio within one run.
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

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.entities.jobs import ConfirmationMailJob, WelcomeMailJob
from referral.settings import Settings
from tests.support.api_client import new_email, register
from tests.support.fakes.security import FakeFingerprinter
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
WARM_UP = 200
"""E-mails before the measured ones, while the worker connects."""

TIMED = 200
ROUNDS = 10
REGISTRATIONS = 60
"""Rounds with a responsive and a silent SMTP server, and registrations in each."""

PACE_SECONDS = 0.05
"""Seconds between registrations, a load without queueing."""


def main() -> None:
    """Run the benchmarks and print the figures as JSON."""
    with temporary_settings() as settings:
        figures = asyncio.run(measure(settings))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


async def measure(settings: Settings) -> dict[str, float]:
    """Run one benchmark after the other."""
    return {
        **await time_mails(settings),
        **await count_mails(settings, "welcome", WelcomeMailJob),
        **await count_mails(settings, "confirmation", ConfirmationMailJob),
        **await compare_registrations(),
    }


async def time_mails(settings: Settings, name: str = "timed") -> dict[str, float]:
    """Measure single e-mails, from the commit to the end of the data at the server."""
    committed: dict[str, float] = {}
    with run_smtp_sink() as sink, running_worker(replace(settings, smtp_url=sink.url)):
        async with open_database(settings) as database:
            for number in range(TIMED + 20):
                email = f"{name}{number}@example.com"
                await enqueue_mails(settings, database, [email])
                committed[email] = time.time()
                await wait_until(lambda email=email: sink.mails_to(email))  # type: ignore[misc]
        durations = sorted(
            (mail.received_at - committed[mail.to]) * 1000 for mail in sink.received[20:]
        )
    return {
        "commit to SMTP, median ms": round(statistics.median(durations), 1),
        "commit to SMTP, p99 ms": round(durations[int(len(durations) * 0.99)], 1),
    }


async def count_mails(
    settings: Settings, name: str, kind: type[WelcomeMailJob | ConfirmationMailJob]
) -> dict[str, float]:
    """Measure the throughput of one worker with a backlog, and its CPU time per e-mail."""
    emails = [f"{name}{number}@example.com" for number in range(WARM_UP + MAILS)]
    async with open_database(settings) as database:
        await enqueue_mails(settings, database, emails, kind)
    with run_smtp_sink() as sink, running_worker(replace(settings, smtp_url=sink.url)) as worker:
        await wait_until(lambda: len(sink.received) >= WARM_UP, 120)
        started, before = time.perf_counter(), (cpu_seconds(worker.pid or 0), len(sink.received))
        await wait_until(lambda: len(sink.received) == len(emails), 120)
        seconds = time.perf_counter() - started
        mails = len(emails) - before[1]
        spent = cpu_seconds(worker.pid or 0) - before[0]
    return {
        f"{name} mails per second": round(mails / seconds),
        f"{name} mail, ms of the worker's core": round(spent / mails * 1000, 2),
        f"{name} mails, share of a core that the worker got": round(spent / seconds, 2),
    }


async def compare_registrations() -> dict[str, float]:
    """Compare registrations with a responsive and a silent SMTP server, in turns.

    Two services run side by side, so that other load on the machine affects both.
    """
    durations: dict[str, list[float]] = {"responsive": [], "silent": []}
    sink, hole = SmtpSink(free_port()), BlackHole(silent_port := free_port())
    sink.start()
    async with (
        mailing_service(sink.url) as responsive,
        mailing_service(f"smtp://127.0.0.1:{silent_port}") as silent,
    ):
        services = {"responsive": responsive, "silent": silent}
        await time_registrations(services, durations, 10)
        durations = {name: [] for name in durations}
        for _ in range(ROUNDS):
            await time_registrations(services, durations, REGISTRATIONS)
        hole.close()
        late = SmtpSink(silent_port)
        late.start()
        mails = ROUNDS * REGISTRATIONS + 10
        await wait_until(lambda: len(sink.received) == len(late.received) == mails, 180)
    sink.stop()
    late.stop()
    return ratios(durations)


async def time_registrations(
    services: dict[str, httpx.AsyncClient], durations: dict[str, list[float]], number: int
) -> None:
    """Time registrations with each service, at a pace that leaves the machine idle."""
    for name, client in services.items():
        for _ in range(number):
            started = time.perf_counter()
            (await register(client, new_email())).raise_for_status()
            durations[name].append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(PACE_SECONDS)


def ratios(durations: dict[str, list[float]]) -> dict[str, float]:
    """Compare median and p99."""
    figures: dict[str, float] = {}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        normal, silent = (sorted(values)[int(len(values) * share)] for values in durations.values())
        figures |= {
            f"registration, {name} ms": round(normal, 1),
            f"registration with SMTP black-holed, {name} ms": round(silent, 1),
            f"ratio of {name}": round(silent / normal, 2),
        }
    return figures


@asynccontextmanager
async def mailing_service(smtp_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service with its own database that uses this SMTP server."""
    with tempfile.TemporaryDirectory(prefix="referral-", ignore_cleanup_errors=True) as folder:
        settings = {"smtp_url": smtp_url, "log_level": "error"}
        with running_service(Path(folder) / "data", **settings) as service:
            async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
                yield client


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[PostgresDatabase]:
    """The adapter that enqueues jobs."""
    engine = make_engine(settings.database_url or "", command_timeout=None)
    yield PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    await engine.dispose()


@contextmanager
def running_worker(settings: Settings) -> Iterator[BaseProcess]:
    """A worker in its own process."""
    worker = start_worker(settings)
    yield worker
    stop_worker(worker)


if __name__ == "__main__":
    main()
