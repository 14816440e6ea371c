"""`referral worker`."""

import asyncio
import gc
import os
import signal

import click
import structlog
import uvloop

from referral.adapters.jobs.worker import WorkerGroup
from referral.adapters.observability.tracing import flush_spans, set_up_tracing
from referral.cli.environment import (
    check_redis,
    reject_pooler,
    running_database,
    settings_from_environment,
)
from referral.container import make_container
from referral.container.configuration import adapters_in_use
from referral.settings import Settings


@click.command("worker")
def worker() -> None:
    """Run jobs outside the API's processes, on any machine; several workers may run at once."""
    settings = settings_from_environment()
    reject_pooler(settings)
    check_redis(settings)
    with running_database(settings):
        run_worker(settings)


def run_worker(settings: Settings) -> None:
    """Run jobs until SIGTERM or SIGINT."""
    uvloop.run(_run_until_signal(settings))


async def _run_until_signal(settings: Settings) -> None:
    set_up_tracing(os.environ)
    container = make_container(settings)
    workers = await container.get(WorkerGroup)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, workers.stop)
    # Objects of the start live until the end. Frozen, they are skipped by the garbage collector,
    # which otherwise stops all jobs for some 100 ms at a time.
    gc.collect()
    gc.freeze()
    log = structlog.get_logger()
    log.info("working", **adapters_in_use(settings) | {"worker": "in this process"})
    try:
        await workers.run()
    finally:
        await container.close()
        await asyncio.to_thread(flush_spans)
    log.info("stopped")
