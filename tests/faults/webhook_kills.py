"""kill -9 of the worker while it delivers events to webhooks (row 40)."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import asyncpg
from msgspec.structs import replace

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.adapters.security.keys import KeyRing
from referral.adapters.security.stored_secrets import AesGcmSecretCipher
from referral.settings import Settings
from tests.faults.report import ScenarioReport
from tests.support.fakes.security import FakeFingerprinter
from tests.support.http_receiver import HttpReceiver, http_receiver
from tests.support.waiting import wait_for_value, wait_until
from tests.support.webhook_rows import add_events, add_webhook
from tests.support.worker_process import start_worker, stop_worker, temporary_settings

KILLS = 50
WEBHOOKS = 3
EVENTS_PER_KILL = 100
LARGEST_KILL_DELAY_SECONDS = 0.05

PENDING = """
SELECT (SELECT count(*) FROM webhook_deliveries WHERE status <> 'succeeded')
    + (SELECT count(*) FROM event_outbox)
"""


@dataclass(frozen=True)
class WebhookOutcome:
    """The count of deliveries: one for each event and webhook."""

    kills: int
    deliveries: int
    lost: int
    doubles: int
    unknown: int
    pending: int

    @property
    def is_as_promised(self) -> bool:
        """Tell whether everything was delivered, and nothing under another id."""
        return (self.lost, self.unknown, self.pending) == (0, 0, 0)


def run(kills: int = KILLS) -> ScenarioReport:
    """Kill workers under load, and count the deliveries."""
    with temporary_settings() as settings:
        outcome = asyncio.run(kill_delivering_workers(settings, kills))
    report = ScenarioReport()
    report.record(**asdict(outcome))
    report.check(holds=outcome.lost == 0, promise="every event is delivered")
    report.check(holds=outcome.pending == 0, promise="every outcome is stored in the end")
    report.check(holds=outcome.unknown == 0, promise="doubles have the id of the event")
    return report


async def kill_delivering_workers(settings: Settings, kills: int) -> WebhookOutcome:
    """Run the campaign on a migrated database without webhooks."""
    settings = replace(settings, webhook_networks=("127.0.0.0/8",))
    async with http_receiver() as receiver, _open_database(settings) as database:
        cipher = AesGcmSecretCipher(KeyRing(settings.signing_key_files))
        for number in range(WEBHOOKS):
            await add_webhook(database, cipher, f"{receiver.url()}/{number}")
        sent: list[str] = []
        for _ in range(kills):
            await _kill(settings, database, receiver, sent)
        worker = start_worker(settings)
        await wait_for_value(lambda: _is_done(settings))
        stop_worker(worker)
        pending = await _count_pending(settings)
    received = Counter(
        (request.line, request.headers["webhook-id"]) for request in receiver.requests
    )
    expected = WEBHOOKS * len(sent)
    known = [key for key in received if key[1] in set(sent)]
    return WebhookOutcome(
        kills=kills,
        deliveries=expected,
        lost=expected - len(known),
        doubles=sum(received.values()) - len(received),
        unknown=len(received) - len(known),
        pending=pending,
    )


async def _kill(
    settings: Settings,
    database: PostgresDatabase,
    receiver: HttpReceiver,
    sent: list[str],
) -> None:
    """Kill a worker shortly after it has begun to deliver."""
    events = await add_events(database, EVENTS_PER_KILL)
    sent += [str(event.id) for event in events]
    worker, before = start_worker(settings), len(receiver.requests)
    await wait_until(lambda: len(receiver.requests) > before)
    await asyncio.sleep(random.uniform(0, LARGEST_KILL_DELAY_SECONDS))  # noqa: S311 - no secret
    worker.kill()
    await asyncio.to_thread(worker.join)


async def _is_done(settings: Settings) -> bool:
    return not await _count_pending(settings)


async def _count_pending(settings: Settings) -> int:
    connection = await asyncpg.connect(settings.database_url)
    try:
        return int(await connection.fetchval(PENDING))
    finally:
        await connection.close()


@asynccontextmanager
async def _open_database(settings: Settings) -> AsyncIterator[PostgresDatabase]:
    engine = make_engine(settings.database_url or "", command_timeout=None)
    yield PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    await engine.dispose()
