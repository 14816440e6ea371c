"""Kill the worker around SMTP's 250, many times, and count what became of the mails.

`python -m tests.faults.worker_kills [KILLS]` prints the figures; a smaller number of kills is
among the ordinary tests.
"""

import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.keys import make_key_file
from referral.adapters.logs import set_up_logs
from referral.adapters.monitor import Monitor
from referral.adapters.postgres.database import PostgresDatabase, make_engine
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.commands import work
from referral.core.jobs import WelcomeMail
from referral.settings import Settings
from tests.processes import free_port
from tests.sink import Received, Sink
from tests.waiting import until, until_found

AROUND = 0.005
"""The kill comes within so many seconds of the end of the data; the 250 comes in between."""

DRAIN_SECONDS = 60

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["referral.commands"])


@dataclass
class Outcome:
    """What became of the mails."""

    kills: int
    mails: int
    lost: int
    duplicates: int
    ids_per_mail: int
    left: int
    seconds: float


@dataclass
class Campaign:
    """A worker that is killed and replaced, and the mails that it is given meanwhile."""

    settings: Settings
    sink: Sink
    engine: AsyncEngine
    kills: int = 0
    aimed: bool = False
    known: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    worker: BaseProcess | None = None

    async def run(self, kills: int) -> Outcome:
        """Kill so many workers, let the last one finish, and count."""
        began = time.monotonic()
        self.sink.answer = self._answer
        while self.kills < kills:
            self._start()
            await self._feed()
            last = self.sent[-1]
            await until(lambda last=last: self.sink.to(last))  # type: ignore[misc]
            self.aimed = True
            while self.worker is not None and self.worker.is_alive():
                await self._feed()
            self.kills += 1
        self.sink.answer = lambda _: "250 OK"
        self._start()
        left = await self._drain()
        self._end()
        return self._count(left, time.monotonic() - began)

    def _start(self) -> None:
        self.worker = _processes.Process(target=_work, args=(self.settings,))
        self.worker.start()

    def _end(self) -> None:
        assert self.worker is not None
        self.worker.terminate()
        self.worker.join(10)

    def _answer(self, mail: Received) -> str:
        """Aim at the first new mail: the kill comes before its 250 or after it."""
        if self.aimed and mail.id not in self.known and self.worker and self.worker.pid:
            self.aimed = False
            moment = random.uniform(0, AROUND)  # noqa: S311 - no secret
            threading.Timer(moment, os.kill, (self.worker.pid, signal.SIGKILL)).start()
            threading.Event().wait(AROUND / 2)
        self.known.add(mail.id)
        return "250 OK"

    async def _feed(self) -> None:
        """Queue a mail to an address that had none."""
        email = f"kill{len(self.sent)}@example.com"
        async with PostgresDatabase(self.engine).begin() as records:
            user_id = await records.session.driver.fetchval(
                "INSERT INTO users VALUES (gen_random_uuid(), $1, $1, 'x', 'member', 'en', "
                "false, true, now()) RETURNING id",
                email,
            )
            await records.jobs.enqueue(WelcomeMail(user_id))
        self.sent.append(email)
        await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311 - no secret

    async def _drain(self) -> int:
        """Wait for the last mail; return how many jobs are left over, held or not."""
        monitor = Monitor(self.settings.database_url or "")

        async def is_drained() -> bool:
            return not sum(state.waiting + state.running for state in await monitor.states())

        await until_found(is_drained, DRAIN_SECONDS)
        for job in await monitor.listed("held", 9):
            sys.stderr.write(f"held: {job}\n")
        return sum(state.held for state in await monitor.states())

    def _count(self, left: int, seconds: float) -> Outcome:
        ids: dict[str, list[str]] = {email: [] for email in self.sent}
        for mail in self.sink.received:
            ids[mail.to].append(mail.id)
        return Outcome(
            kills=self.kills,
            mails=len(self.sent),
            lost=sum(not found for found in ids.values()),
            duplicates=sum(max(len(found) - 1, 0) for found in ids.values()),
            ids_per_mail=max(len(set(found)) for found in ids.values()),
            left=left,
            seconds=round(seconds, 1),
        )


def _work(settings: Settings) -> None:
    set_up_logs("json", "error")
    work(settings)


async def kill_workers(settings: Settings, sink: Sink, kills: int) -> Outcome:
    """Run a campaign over a migrated, empty database."""
    engine = make_engine(settings.database_url or "")
    campaign = Campaign(replace(settings, smtp_url=sink.url, log_level="error"), sink, engine)
    try:
        return await campaign.run(kills)
    finally:
        await engine.dispose()


@contextmanager
def _a_place() -> Iterator[Settings]:
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


def main() -> None:
    """Kill as often as asked for, print the figures, and fail when they are not what they must."""
    with _a_place() as settings:
        sink = Sink(free_port())
        sink.start()
        kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
        outcome = asyncio.run(kill_workers(settings, sink, kills))
        sink.stop()
    sys.stdout.write(f"{outcome}\n")
    right = (outcome.lost, outcome.left, outcome.ids_per_mail) == (0, 0, 1)
    sys.exit(not (right and outcome.duplicates <= outcome.kills))


if __name__ == "__main__":
    main()
