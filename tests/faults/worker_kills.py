"""Kill the worker around SMTP's 250, many times, and count what became of the mails.

`python -m tests.faults.worker_kills [KILLS]` prints the figures; a smaller number of kills is
among the ordinary tests. So many kills meet a worker that gets a mail now and then, and a quarter
as many one with a backlog.
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
from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.settings import Settings
from tests.support.api_client import new_email
from tests.support.fakes.ports import FakeFingerprinter
from tests.support.smtp_sink import ReceivedMail, SmtpSink, run_smtp_sink
from tests.support.waiting import wait_for_value, wait_until
from tests.support.worker_process import (
    enqueue_mails,
    start_worker,
    stop_worker,
    temporary_settings,
)

KILL_WINDOW_SECONDS = 0.005
"""The kill comes within so many seconds of the end of the data; the 250 comes in between."""

BACKLOG = 300
DRAIN_SECONDS = 60

PICKED_JOBS_SQL = "SELECT id, queue_manager_id FROM pgqueuer WHERE status = 'picked'"


@dataclass
class Outcome:
    """What became of the mails; `in_flight` of them were being worked on when a kill came."""

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
        """Tell whether it is what is promised."""
        exact = (self.lost, self.left, self.ids_per_mail) == (0, 0, 1)
        return exact and self.duplicates <= self.in_flight


@dataclass
class Campaign:
    """A worker that is killed and replaced, and the mails that it is given meanwhile."""

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
        """Kill so many workers, let the last one finish, and count."""
        began = time.monotonic()
        self.sink.reply = self._answer
        while self.kills < kills:
            await self._kill()
            self.kills += 1
        self.sink.reply = lambda _: "250 OK"
        worker = start_worker(self.settings)
        left = await self._drain()
        stop_worker(worker)
        return self._count(left, time.monotonic() - began)

    async def _kill(self) -> None:
        """Start a worker, let it send some of the mails, and kill it."""
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

    def _answer(self, mail: ReceivedMail) -> str:
        """Aim at the first new mail: the kill comes before its 250 or after it."""
        if self.aimed and mail.id not in self.known and self.worker and self.worker.pid:
            self.aimed = False
            moment = random.uniform(0, KILL_WINDOW_SECONDS)  # noqa: S311 - no secret
            threading.Timer(moment, os.kill, (self.worker.pid, signal.SIGKILL)).start()
            threading.Event().wait(KILL_WINDOW_SECONDS / 2)
        self.known.add(mail.id)
        return "250 OK"

    async def _feed(self, mails: int) -> None:
        """Queue mails to addresses that had none."""
        emails = [new_email() for _ in range(mails)]
        await enqueue_mails(self.settings, self.database, emails)
        self.sent += emails
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - no secret

    async def _drain(self) -> int:
        """Wait for the last mail; return how many jobs are left over, held or not."""
        monitor = JobAdmin(self.settings.database_url or "")

        async def is_drained() -> bool:
            return not sum(state.waiting + state.running for state in await monitor.stats())

        await wait_for_value(is_drained, DRAIN_SECONDS)
        for job in await monitor.list_jobs("held", 9):
            sys.stderr.write(f"held: {job}\n")
        return sum(state.held for state in await monitor.stats())

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
    """Run a campaign over a migrated, empty database."""
    engine = make_engine(settings.database_url or "", command_timeout=None)
    told = replace(settings, smtp_url=sink.url, log_level="error")
    try:
        return await Campaign(
            told, sink, PostgresDatabase(engine, FakeFingerprinter()), backlog
        ).run(kills)
    finally:
        await engine.dispose()


def main() -> None:
    """Kill as often as asked for, print the figures, and fail when they are not what they must."""
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
