"""The cost of events: `python -m tests.performance.events` prints the figures as JSON.

The service runs without events, with them, and with three webhooks for all events, in turns on one
database. Each measurement has a process of its own; a backlog of deliveries is deleted after it.
"""

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from referral.adapters.security.access_tokens import JwtAccessTokenIssuer
from referral.adapters.security.keys import KeyRing
from referral.adapters.system import SystemClock
from referral.core.entities.clients import Scope
from referral.settings import Settings
from tests.performance.benchmarks import (
    ADDRESSES,
    CODES_SCRIPT,
    ROUNDS,
    WRITERS,
    register_script,
    with_cpu,
)
from tests.performance.load import Measurement, run_wrk
from tests.performance.mail import open_database
from tests.performance.seed import seed, user_id
from tests.performance.testbed import LIMITS, TOKEN_MINUTES, Server
from tests.performance.webhooks import cipher_of, counting_receiver
from tests.support.api_client import API
from tests.support.service_process import COMMAND, environment, free_port
from tests.support.webhook_rows import add_webhook
from tests.support.worker_process import temporary_settings

WEBHOOKS = 3
WARM_UP_SECONDS = 2
SECONDS = 8
WITHOUT, WITH, WITH_WEBHOOKS = "without events", "with events", f"with {WEBHOOKS} webhooks"
WITHOUT_EVENTS = (sys.executable, "-m", "tests.performance.without_events")


def main() -> None:
    """Run the benchmark and print the figures as JSON."""
    measured: dict[str, list[Measurement]] = {}
    with temporary_settings() as settings, counting_receiver() as receiver:
        asyncio.run(seed(settings.database_url or "", 1, ADDRESSES + WRITERS, "x"))
        for _ in range(ROUNDS):
            for variant in (WITHOUT, WITH, WITH_WEBHOOKS):
                webhooks = WEBHOOKS if variant == WITH_WEBHOOKS else 0
                asyncio.run(replace_webhooks(settings, receiver.url, webhooks))
                command = WITHOUT_EVENTS if variant == WITHOUT else COMMAND
                for name, measurement in measure(settings, command):
                    measured.setdefault(f"{name}, {variant}", []).append(measurement)
    sys.stdout.write(json.dumps(dict(figures(measured)), indent=2) + "\n")


def figures(measured: dict[str, list[Measurement]]) -> Iterator[tuple[str, float]]:
    """Yield the medians, and the rates as shares of those without events."""
    for name, measurements in measured.items():
        rate = statistics.median(each.rate for each in measurements)
        cpu = statistics.median(each.cpu for each in measurements)
        operation = name.partition(",")[0]
        base = statistics.median(each.rate for each in measured[f"{operation}, {WITHOUT}"])
        yield f"{name}, per second", round(rate, 1)
        yield f"{name}, ms of the service's CPU", round(cpu, 2)
        yield f"{name}, ratio", round(rate / base, 3)


async def replace_webhooks(settings: Settings, url: str, count: int) -> None:
    """Delete all webhooks and deliveries, and store so many new ones."""
    connection = await asyncpg.connect(settings.database_url)
    await connection.execute("TRUNCATE webhooks, webhook_deliveries, pgqueuer, pgqueuer_log")
    await connection.execute("CHECKPOINT")
    await connection.close()
    async with open_database(settings) as database:
        for _ in range(count):
            await add_webhook(database, cipher_of(settings), url)


def measure(settings: Settings, command: Sequence[str]) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurements of creating and deleting codes, and of registrations with a code."""
    keys = KeyRing([Path(settings.signing_key_file or "")])
    issuer = JwtAccessTokenIssuer(settings.public_url, keys, TOKEN_MINUTES, SystemClock())
    tokens = ", ".join(
        f'"{issuer.issue(str(user_id(ADDRESSES + 1 + number)), "first-party", Scope.ACCOUNT)}"'
        for number in range(WRITERS)
    )
    script = CODES_SCRIPT.format(tokens=tokens, path=f"{API}/me/codes")
    with running(settings, command) as service:

        def codes(seconds: int = SECONDS) -> Measurement:
            return run_wrk(
                service.url, script, threads=WRITERS, connections=WRITERS, seconds=seconds
            )

        codes(WARM_UP_SECONDS)
        yield "codes", with_cpu(service, codes)()
    with running(settings, command) as service:
        yield (
            "registration",
            with_cpu(
                service,
                lambda: run_wrk(service.url, register_script(), connections=8, seconds=SECONDS),
            )(),
        )


@contextmanager
def running(settings: Settings, command: Sequence[str]) -> Iterator[Server]:
    """Run the service until the block ends."""
    port, log = free_port(), settings.data_dir / "service.log"
    variables = environment(
        settings.data_dir / "var",
        database_url=settings.database_url or "",
        signing_key_file=str(settings.signing_key_file),
        webhook_networks="127.0.0.0/8",
        **LIMITS,
    )
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "run", "--port", str(port)],
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        service.wait_until_ready()
        yield service
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
