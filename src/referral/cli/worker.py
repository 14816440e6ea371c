"""`referral worker`."""

import asyncio
import os
import signal

import click
import structlog
import uvloop

from referral.adapters.jobs.worker import Worker
from referral.adapters.observability.tracing import send_rest, set_up_tracing
from referral.cli.environment import (
    refuse_pooler,
    running_database,
    settings_from_environment,
)
from referral.container import make_container
from referral.container.configuration import (
    parts_in_use,
)
from referral.settings import Settings


@click.command("worker")
def worker() -> None:
    """Run jobs outside the API's processes, on this machine or another; several may run."""
    settings = settings_from_environment()
    refuse_pooler(settings)
    with running_database(settings):
        run_worker(settings)


def run_worker(settings: Settings) -> None:
    """Do jobs until SIGTERM or SIGINT."""
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    set_up_tracing(os.environ)
    container = make_container(settings)
    worker = await container.get(Worker)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    log = structlog.get_logger()
    log.info("working", **parts_in_use(settings) | {"worker": "alone"})
    try:
        await worker.run()
    finally:
        await container.close()
        await asyncio.to_thread(send_rest)
    log.info("stopped")
