"""The cost of events: `python -m tests.performance.events` prints the figures as JSON.

The service runs without events, with them, and with three webhooks for all events, in turns on one
database; jobs and deliveries have a worker process of their own. A fourth variant has webhooks and
no worker: what requests pay, without the processor time of the deliveries. Each measurement has a
process of its own; a backlog of deliveries is deleted after it.
"""

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import asyncpg
from msgspec.structs import replace

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
from tests.performance.mail import open_database, running_worker
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
TABLES = "webhooks, webhook_deliveries, event_outbox, pgqueuer, pgqueuer_log"
WITHOUT_EVENTS = (sys.executable, "-m", "tests.performance.without_events")


class Variant(NamedTuple):
    """A service: the command that runs it, its webhooks, and whether jobs run beside it."""

    command: Sequence[str]
    webhooks: int
    has_worker: bool


WITHOUT = "without events"
VARIANTS = {
    WITHOUT: Variant(WITHOUT_EVENTS, 0, has_worker=True),
    "with events": Variant(COMMAND, 0, has_worker=True),
    f"with {WEBHOOKS} webhooks": Variant(COMMAND, WEBHOOKS, has_worker=True),
    f"with {WEBHOOKS} webhooks, no worker": Variant(COMMAND, WEBHOOKS, has_worker=False),
}


def main() -> None:
    """Run the benchmark and print the figures as JSON."""
    measured: dict[str, list[Measurement]] = {}
    with temporary_settings() as settings, counting_receiver() as receiver:
        asyncio.run(seed(settings.database_url or "", 1, ADDRESSES + WRITERS, "x"))
        for _ in range(ROUNDS):
            for name, variant in VARIANTS.items():
                asyncio.run(replace_webhooks(settings, receiver.url, variant.webhooks))
                for operation, measurement in measure(settings, variant):
                    measured.setdefault(f"{operation}, {name}", []).append(measurement)
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
    await connection.execute(f"TRUNCATE {TABLES}")
    await connection.execute("CHECKPOINT")
    await connection.close()
    async with open_database(settings) as database:
        for _ in range(count):
            await add_webhook(database, cipher_of(settings), url)


def measure(settings: Settings, variant: Variant) -> Iterator[tuple[str, Measurement]]:
    """Yield the measurements of creating and deleting codes, and of registrations with a code."""
    keys = KeyRing([Path(settings.signing_key_file or "")])
    issuer = JwtAccessTokenIssuer(settings.public_url, keys, TOKEN_MINUTES, SystemClock())
    tokens = ", ".join(
        f'"{issuer.issue(str(user_id(ADDRESSES + 1 + number)), "first-party", Scope.ACCOUNT)}"'
        for number in range(WRITERS)
    )
    script = CODES_SCRIPT.format(tokens=tokens, path=f"{API}/me/codes")
    with running(settings, variant) as service:

        def codes(seconds: int = SECONDS) -> Measurement:
            return run_wrk(
                service.url, script, threads=WRITERS, connections=WRITERS, seconds=seconds
            )

        codes(WARM_UP_SECONDS)
        yield "codes", with_cpu(service, codes)()
    with running(settings, variant) as service:
        yield (
            "registration",
            with_cpu(
                service,
                lambda: run_wrk(service.url, register_script(), connections=8, seconds=SECONDS),
            )(),
        )


@contextmanager
def running(settings: Settings, variant: Variant) -> Iterator[Server]:
    """Run the service, and its worker if it has one, until the block ends."""
    port, log = free_port(), settings.data_dir / "service.log"
    variables = environment(
        settings.data_dir / "var",
        database_url=settings.database_url or "",
        signing_key_file=str(settings.signing_key_file),
        worker="off",
        **LIMITS,
    )
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*variant.command, "run", "--port", str(port)],
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    service = Server(process, f"http://127.0.0.1:{port}", log)
    local = replace(settings, webhook_networks=("127.0.0.0/8",))
    try:
        with running_worker(local) if variant.has_worker else nullcontext():
            service.wait_until_ready()
            yield service
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
