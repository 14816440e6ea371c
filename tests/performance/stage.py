"""What is measured: a service with Redis, one without, and the bare handlers, over one database."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from referral.adapters.keys import KeyRing, make_key_file
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.tokens import JwtAccessTokens
from referral.core.model import Scope
from tests.performance.fill import user_id
from tests.processes import Service, free_port, running
from tests.servers import OwnRedis

LIMIT = "100000000/minute"
LIMITS = {f"limit_{group}": LIMIT for group in ("register", "token", "lookup")}
BODY = (
    '{"code":"BENCH-1","expires_at":"2027-03-01T12:00:00.123456Z",'
    '"url":"http://127.0.0.1:8000/r/BENCH-1"}'
)


@dataclass(frozen=True)
class Stage:
    """All that runs."""

    service: Service
    uncached: Service
    bare: Service
    database: str
    tokens: JwtAccessTokens

    def token(self, number: int) -> str:
        """Return an access token of a user."""
        return self.tokens.issue(str(user_id(number)), "first-party", Scope.ACCOUNT)

    def memory(self) -> float:
        """Return the resident memory of the service's worker process, in MB."""
        parent = self.service.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        states = [Path(f"/proc/{child}/status").read_text() for child in children]
        return max(
            int(state.partition("VmRSS:")[2].split()[0]) / 1000
            for state in states
            if "Name:\tpostgres" not in state
        )


@contextmanager
def stage(home: Path) -> Iterator[Stage]:
    """Run it all until the block ends."""
    redis, key = OwnRedis(), home / "signing.pem"
    make_key_file(key)
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.close)
        settings = {"redis_url": redis.url, "signing_key_file": str(key)} | LIMITS
        service = stack.enter_context(running(home / "var", **settings))
        database = EmbeddedPostgres(home / "var" / "postgres").url
        settings = {"database_url": database, "signing_key_file": str(key)} | LIMITS
        uncached = stack.enter_context(running(home / "uncached", **settings))
        bare = stack.enter_context(_bare(home, database, redis.url, key))
        tokens = JwtAccessTokens("http://127.0.0.1:8000", KeyRing([key]), 60)
        time.sleep(1)  # what has just started is still warming up
        yield Stage(service, uncached, bare, database, tokens)


@contextmanager
def _bare(home: Path, database: str, redis: str, key: Path) -> Iterator[Service]:
    port, log = free_port(), home / "bare.log"
    given = {
        "BARE_BODY": BODY,
        "BARE_DATABASE": database,
        "BARE_REDIS": redis,
        "BARE_KEY": str(key),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tests.performance.bare", str(port)],
            env=os.environ | given,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Service(process, f"http://127.0.0.1:{port}", log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()
