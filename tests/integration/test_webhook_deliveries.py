"""Deliveries from the database to receivers, through the worker."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from msgspec.structs import replace
from standardwebhooks import Webhook as Verifier

from referral.adapters.jobs.worker import WorkerGroup
from referral.adapters.postgres.database import PostgresDatabase
from referral.container import make_container
from referral.core.ports.security import SecretCipher
from referral.settings import Settings
from tests.support.http_receiver import http_receiver
from tests.support.waiting import wait_for_value, wait_until
from tests.support.webhook_rows import SECRET, add_deliveries, add_webhook

LOOPBACK = ("127.0.0.0/8",)


@asynccontextmanager
async def running_workers(settings: Settings) -> AsyncIterator[SecretCipher]:
    """Run the workers of a process, as `referral worker` does; yield its cipher."""
    container = make_container(settings)
    workers = await container.get(WorkerGroup)
    task = asyncio.create_task(workers.run())
    try:
        yield await container.get(SecretCipher)
    finally:
        workers.stop()
        await task
        await container.close()


async def count(settings: Settings, condition: str) -> int:
    """Count the deliveries that satisfy a condition."""
    connection = await asyncpg.connect(settings.database_url)
    try:
        statement = f"SELECT count(*) FROM webhook_deliveries WHERE {condition}"  # noqa: S608
        return int(await connection.fetchval(statement))
    finally:
        await connection.close()


async def silence(_: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def test_dead_receivers_do_not_hold_up_others(
    settings: Settings, database: PostgresDatabase
) -> None:
    """A healthy receiver gets all events while ten silent ones have one request each."""
    settings = replace(settings, webhook_networks=LOOPBACK)
    async with (
        http_receiver() as healthy,
        http_receiver(silence) as silent,
        running_workers(settings) as cipher,
    ):
        dead = [await add_webhook(database, cipher, silent.url()) for _ in range(10)]
        await add_deliveries(database, dead, 20)
        await wait_until(lambda: len(silent.requests) == 10)
        webhook = await add_webhook(database, cipher, healthy.url())
        events = await add_deliveries(database, [webhook], 300)
        await wait_until(lambda: len(healthy.requests) >= 300)
        await wait_for_value(lambda: is_recorded(settings, 300))
        assert len(silent.requests) == 10
    sent = {request.headers["webhook-id"] for request in healthy.requests}
    assert sent == {str(event.id) for event in events}
    assert len(healthy.requests) == 300
    for request in healthy.requests:
        Verifier(b64encode(SECRET).decode()).verify(request.body, request.headers)
    assert await count(settings, "status = 'pending'") == 200


async def is_recorded(settings: Settings, number: int) -> bool:
    """Tell whether this number of deliveries succeeded."""
    return await count(settings, "status = 'succeeded'") == number
