"""`referral worker` in a process of its own, beside a database that keeps what it commits."""

import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import asyncpg

from referral.adapters.observability.logs import set_up_logs
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.keys import make_key_file
from referral.cli.worker import run_worker
from referral.core.entities.jobs import ConfirmationMail, WelcomeMail
from referral.settings import Settings

INSERT = """
INSERT INTO users
SELECT gen_random_uuid(), email, email, 'x', 'member', 'en', false, true, now()
FROM unnest($1::text[]) AS email RETURNING id
"""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["referral.cli.worker"])


@contextmanager
def a_place() -> Iterator[Settings]:
    """A folder with a database of its own, which is as durable as in production."""
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


def start_worker(settings: Settings) -> BaseProcess:
    """Start a worker that logs errors alone."""
    process = _processes.Process(target=_work, args=(settings,))
    process.start()
    return process


def stop_worker(worker: BaseProcess) -> None:
    """Ask it to end as an operator does."""
    worker.terminate()
    worker.join(10)


async def queue_mails(
    settings: Settings,
    database: PostgresDatabase,
    emails: list[str],
    kind: type[WelcomeMail | ConfirmationMail] = WelcomeMail,
) -> None:
    """Make accounts and queue a mail to each, many in one transaction."""
    connection = await asyncpg.connect(settings.database_url)
    rows = await connection.fetch(INSERT, emails)
    await connection.close()
    async with database.begin() as records:
        await records.jobs.enqueue(*(kind(row["id"]) for row in rows))


def _work(settings: Settings) -> None:
    set_up_logs("json", "error")
    run_worker(settings)
