"""kill -9 of the worker around SMTP's final 250, and the count of its e-mails.

`python -m tests.faults.worker_kills [KILLS]` prints the outcome; the ordinary tests use a smaller
number of kills. A quarter as many kills hit a worker with a backlog.
"""

import asyncio
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

import asyncpg
from msgspec.structs import replace

from referral.adapters.jobs.admin import JobAdmin
from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.settings import Settings
from tests.support.api_client import new_email
from tests.support.fakes.security import FakeFingerprinter
from tests.support.smtp_sink import ReceivedMail, SmtpSink, run_smtp_sink
from tests.support.waiting import wait_for_value, wait_until
from tests.support.worker_process import (
    enqueue_mails,
    start_worker,
    stop_worker,
    temporary_settings,
)

KILL_WINDOW_SECONDS = 0.005
"""Maximum delay of the kill after the end of the data; the 250 is sent halfway."""

BACKLOG = 300
DRAIN_SECONDS = 60

PICKED_JOBS_SQL = "SELECT id, queue_manager_id FROM pgqueuer WHERE status = 'picked'"


@dataclass
class Outcome:
    """The count of e-mails; `in_flight` were being sent at a kill."""

    backlog: int
    kills: int
    mails: int
    in_flight: int
    lost: int
    duplicates: int
    ids_per_mail: int
    left: int
    seconds: float

    @property
    def is_as_promised(self) -> bool:
        """Tell whether nothing is lost, stuck or duplicated beyond the e-mails in flight."""
        exact = (self.lost, self.left, self.ids_per_mail) == (0, 0, 1)
        return exact and self.duplicates <= self.in_flight


@dataclass
class Campaign:
    """A worker that is killed and replaced while e-mails are queued."""

    settings: Settings
    sink: SmtpSink
    database: PostgresDatabase
    backlog: int
    kills: int = 0
    aimed: bool = False
    known: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    in_flight: set[tuple[object, ...]] = field(default_factory=set)
    worker: BaseProcess | None = None

    async def run(self, kills: int) -> Outcome:
        """Kill workers, let the last one finish, and count."""
        started = time.monotonic()
        self.sink.reply = self._reply
        while self.kills < kills:
            await self._kill()
            self.kills += 1
        self.sink.reply = lambda _: "250 OK"
        worker = start_worker(self.settings)
        held = await self._drain()
        stop_worker(worker)
        return self._count(held, time.monotonic() - started)

    async def _kill(self) -> None:
        """Start a worker, let it send some e-mails, and kill it."""
        await self._feed(max(self.backlog - len(self.sent) + len(self.known), 1))
        goal = len(self.known) + random.randint(1, self.backlog // 2 + 1)  # noqa: S311 - no secret
        self.worker = start_worker(self.settings)
        await wait_until(lambda: len(self.known) >= min(goal, len(self.sent)))
        self.aimed = True
        while self.worker.is_alive():
            await self._feed(1)
        connection = await asyncpg.connect(self.settings.database_url)
        self.in_flight |= {tuple(row) for row in await connection.fetch(PICKED_JOBS_SQL)}
        await connection.close()

    def _reply(self, mail: ReceivedMail) -> str:
        """Reply to an e-mail; the first new one schedules the kill around its 250."""
        if self.aimed and mail.id not in self.known and self.worker and self.worker.pid:
            self.aimed = False
            delay = random.uniform(0, KILL_WINDOW_SECONDS)  # noqa: S311 - no secret
            threading.Timer(delay, os.kill, (self.worker.pid, signal.SIGKILL)).start()
            threading.Event().wait(KILL_WINDOW_SECONDS / 2)
        self.known.add(mail.id)
        return "250 OK"

    async def _feed(self, mails: int) -> None:
        """Queue welcome e-mails to new users."""
        emails = [new_email() for _ in range(mails)]
        await enqueue_mails(self.settings, self.database, emails)
        self.sent += emails
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - no secret

    async def _drain(self) -> int:
        """Wait for the last job; return the number of held jobs."""
        job_admin = JobAdmin(self.settings.database_url or "")

        async def is_drained() -> bool:
            return not sum(state.waiting + state.running for state in await job_admin.stats())

        await wait_for_value(is_drained, DRAIN_SECONDS)
        for job in await job_admin.list_jobs("held", 9):
            sys.stderr.write(f"held: {job}\n")
        return sum(state.held for state in await job_admin.stats())

    def _count(self, left: int, seconds: float) -> Outcome:
        ids: dict[str, list[str]] = {email: [] for email in self.sent}
        for mail in self.sink.received:
            ids[mail.to].append(mail.id)
        return Outcome(
            backlog=self.backlog,
            kills=self.kills,
            mails=len(self.sent),
            in_flight=len(self.in_flight),
            lost=sum(not found for found in ids.values()),
            duplicates=sum(max(len(found) - 1, 0) for found in ids.values()),
            ids_per_mail=max(len(set(found)) for found in ids.values()),
            left=left,
            seconds=round(seconds, 1),
        )


async def kill_workers(settings: Settings, sink: SmtpSink, kills: int, backlog: int = 1) -> Outcome:
    """Run a campaign on a migrated, empty database."""
    engine = make_engine(settings.database_url or "", command_timeout=None)
    changed = replace(settings, smtp_url=sink.url, log_level="error")
    try:
        return await Campaign(
            changed, sink, PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue), backlog
        ).run(kills)
    finally:
        await engine.dispose()


def main() -> None:
    """Kill as many workers as requested; exit with 1 if the outcome is not as promised."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    outcomes = [_kill_in_a_place(kills, 1), _kill_in_a_place(kills // 4, BACKLOG)]
    sys.exit(not all(outcome.is_as_promised for outcome in outcomes))


def _kill_in_a_place(kills: int, backlog: int) -> Outcome:
    with temporary_settings() as settings, run_smtp_sink() as sink:
        outcome = asyncio.run(kill_workers(settings, sink, kills, backlog))
    sys.stdout.write(f"{outcome}\n")
    sys.stdout.flush()
    return outcome


if __name__ == "__main__":
    main()
