"""The testbed: a service with Redis, one without, and the baseline handlers, on one database."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.access_tokens import JwtAccessTokenIssuer
from referral.adapters.security.keys import KeyRing, make_key_file
from referral.adapters.system import SystemClock
from referral.core.entities.clients import Scope
from tests.performance.seed import user_id
from tests.support.api_client import LIMITED_GROUPS
from tests.support.process_stats import find_worker
from tests.support.server_processes import RedisProcess
from tests.support.service_process import Service, free_port, running_service

LIMIT = "999999/second"
LIMITS = {f"limit_{group}": LIMIT for group in LIMITED_GROUPS}
TOKEN_MINUTES = 180
BODY = (
    '{"code":"BENCH-1","expires_at":"2027-03-01T12:00:00.123456Z",'
    '"url":"http://127.0.0.1:8000/r/BENCH-1"}'
)


@dataclass(frozen=True)
class Server(Service):
    """A service whose process is measured."""

    def process_id(self) -> int:
        """Return the id of the process that responds."""
        return find_worker(self)


@dataclass(frozen=True)
class Dataset:
    """A database with users, a service on it with Redis, and one without a cache."""

    users: int
    database: str
    service: Server
    uncached: Server


@dataclass(frozen=True)
class Testbed:
    """The running services."""

    home: Path
    redis: str
    key: Path
    small: Dataset
    baseline: Server
    tokens: JwtAccessTokenIssuer

    @property
    def service(self) -> Server:
        """The service on the small database."""
        return self.small.service

    def token(self, number: int) -> str:
        """Return an access token of a user."""
        return self.tokens.issue(str(user_id(number)), "first-party", Scope.ACCOUNT)

    @contextmanager
    def open_dataset(self, users: int) -> Iterator[Dataset]:
        """Run services on another database of the same server."""
        name = f"users{users}"
        asyncio.run(_execute(self.small.database, f"CREATE DATABASE {name}"))
        database = make_url(self.small.database).set(database=name)
        url = database.render_as_string(hide_password=False)
        migrate(url)
        settings = _settings(self.key, url)
        with (
            _run_service(self.home / name, **settings, redis_url=f"{self.redis[:-1]}1") as service,
            _run_service(self.home / f"{name}-uncached", process_id="off", **settings) as uncached,
        ):
            yield Dataset(users, url, service, uncached)


@contextmanager
def make_testbed(home: Path, users: int) -> Iterator[Testbed]:
    """Run all services until the block ends."""
    redis, key = RedisProcess(), home / "signing.pem"
    make_key_file(key)
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.close)
        settings = _settings(key)
        service = stack.enter_context(_run_service(home / "var", **settings, redis_url=redis.url))
        database = EmbeddedPostgres(home / "var" / "postgres").url
        settings = _settings(key, database)
        uncached = stack.enter_context(
            _run_service(home / "uncached", process_id="off", **settings)
        )
        baseline = stack.enter_context(_run_baseline(home, database, redis.url, key))
        tokens = JwtAccessTokenIssuer(
            "http://127.0.0.1:8000", KeyRing([key]), TOKEN_MINUTES, SystemClock()
        )
        small = Dataset(users, database, service, uncached)
        yield Testbed(home, redis.url, key, small, baseline, tokens)


@contextmanager
def _run_service(folder: Path, **settings: str) -> Iterator[Server]:
    with running_service(folder, **settings) as service:
        yield Server(service.process, service.url, service.log)


def _settings(key: Path, database: str | None = None) -> dict[str, str]:
    settings = {"signing_key_file": str(key)} | LIMITS
    return settings | ({"database_url": database} if database else {})


async def _execute(database: str, statement: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(statement)
    await connection.close()


@contextmanager
def _run_baseline(home: Path, database: str, redis: str, key: Path) -> Iterator[Server]:
    port, log = free_port(), home / "bare.log"
    variables = {
        "BARE_BODY": BODY,
        "BARE_DATABASE": database,
        "BARE_REDIS": redis,
        "BARE_KEY": str(key),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tests.performance.baseline", str(port)],
            env=os.environ | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()
