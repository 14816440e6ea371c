"""`referral worker` in its own process, with a durable database."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import asyncpg

from referral.adapters.observability.logs import configure_logging
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.keys import make_key_file
from referral.cli.worker import run_worker
from referral.core.entities.jobs import ConfirmationMailJob, WelcomeMailJob
from referral.settings import Settings
from tests.support.forked_commands import context

INSERT_USERS = """
INSERT INTO users
SELECT gen_random_uuid(), email, email, 'x', 'member', 'en', false, true, now()
FROM unnest($1::text[]) AS email RETURNING id
"""


@contextmanager
def temporary_settings() -> Iterator[Settings]:
    """Yield settings for a new folder and database, which is as durable as in production."""
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
    """Start a worker that logs only errors."""
    process = context.Process(target=_run, args=(settings,))
    process.start()
    return process


def stop_worker(worker: BaseProcess) -> None:
    """Send SIGTERM, and wait for the exit."""
    worker.terminate()
    worker.join(10)


async def enqueue_mails(
    settings: Settings,
    database: PostgresDatabase,
    emails: list[str],
    job_type: type[WelcomeMailJob | ConfirmationMailJob] = WelcomeMailJob,
) -> None:
    """Insert accounts and enqueue a mail to each in one transaction."""
    connection = await asyncpg.connect(settings.database_url)
    rows = await connection.fetch(INSERT_USERS, emails)
    await connection.close()
    async with database.begin() as repositories:
        await repositories.jobs.enqueue(*(job_type(row["id"]) for row in rows))


def _run(settings: Settings) -> None:
    configure_logging("json", "error")
    run_worker(settings)
