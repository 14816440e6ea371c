"""The testbed of a scenario: real servers, and the service in processes of its own."""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.keys import make_key_file
from tests.support.server_processes import RedisProcess
from tests.support.service_process import COMMAND, Service, environment, free_port, running_service
from tests.support.smtp_sink import SmtpSink

STOP_SECONDS = 15


@dataclass(frozen=True)
class Testbed:
    """PostgreSQL, Redis, an SMTP server that records, and a signing key."""

    folder: Path
    database: EmbeddedPostgres
    redis: RedisProcess
    sink: SmtpSink
    key: Path

    def settings(self, **changes: str) -> dict[str, str]:
        """Return the settings of a service on this testbed."""
        return {
            "database_url": self.database.url,
            "redis_url": self.redis.url,
            "smtp_url": self.sink.url,
            "signing_key_file": str(self.key),
            "email_verification": "off",
            "worker": "off",
            "log_level": "warning",
        } | changes

    def service(self, **changes: str) -> AbstractContextManager[Service]:
        """Run `referral run` until the block ends."""
        port = free_port()
        return running_service(self.folder / f"api-{port}", port=port, **self.settings(**changes))

    @contextmanager
    def worker(
        self, command: Sequence[str] = COMMAND, **changes: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run `referral worker`, or that of another command, until the block ends."""
        variables = environment(self.folder / "worker", **self.settings(**changes))
        with (self.folder / "worker.log").open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [*command, "worker"], env=variables, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection to the database."""
        connection = await asyncpg.connect(self.database.url)
        try:
            yield connection
        finally:
            await connection.close()


@contextmanager
def make_testbed(postgres: Path | None = None, *options: str) -> Iterator[Testbed]:
    """Start the servers until the block ends; PostgreSQL's folder can be chosen."""
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    database = EmbeddedPostgres(postgres or folder / "postgres", *options)
    redis, sink, key = RedisProcess(), SmtpSink(free_port()), folder / "signing.pem"
    make_key_file(key)
    database.start()
    redis.start()
    sink.start()
    try:
        migrate(database.url)
        yield Testbed(folder, database, redis, sink, key)
    finally:
        sink.stop()
        redis.close()
        database.stop()
        shutil.rmtree(folder)
