"""`referral worker` and the commands under `referral jobs`."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
import structlog
import uvloop

from referral.adapters.failures import cause_of
from referral.adapters.jobs.admin import STATUSES, Monitor, QueueStats
from referral.adapters.jobs.worker import Worker
from referral.adapters.observability.tracing import send_rest, set_up_tracing
from referral.container import make_container
from referral.container.configuration import parts_in_use
from referral.core.use_cases.health import PartHealth
from referral.settings import Settings

LOGIN = ("PGQUEUER_WEB_USER", "PGQUEUER_WEB_PASSWORD")


def work(settings: Settings) -> None:
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


def show_parts(
    in_use: Mapping[str, str], states: Sequence[PartHealth], servers: Mapping[str, str]
) -> None:
    """Show which parts are in use, and then how those are that can be asked."""
    _print_table(("part", "in use"), list(in_use.items()))
    click.echo()
    _print_table(("asked", "state"), [(state.part, _word(state, servers)) for state in states])


def _word(state: PartHealth, servers: Mapping[str, str]) -> str:
    if state.error is None or state.error.__cause__ is None:
        return state.word
    server = f"{servers[state.part]}, " if state.part in servers else ""
    return f"{state.word}: {server}{cause_of(state.error)}"


def show_states(monitor: Monitor) -> None:
    """Show how many jobs of each kind wait, run and are held."""
    rows = [_state(state) for state in asyncio.run(monitor.states())]
    _print_table(("kind", "waiting", "oldest", "running", "held", "done in an hour"), rows)


@click.command("list")
@click.option("--status", default="held", show_default=True, type=click.Choice(list(STATUSES)))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.pass_obj
def list_jobs(monitor: Monitor, status: str, limit: int) -> None:
    """List jobs, the oldest first, with what went wrong last."""
    jobs = asyncio.run(monitor.listed(status, limit))
    rows = [
        (job.id, job.kind, job.status, job.attempts, _minute(job.created), job.fault)
        for job in jobs
    ]
    _print_table(("id", "kind", "status", "attempts", "since", "last fault"), rows)


@click.command("trace")
@click.argument("job_id", type=int, metavar="ID")
@click.pass_obj
def show_trace(monitor: Monitor, job_id: int) -> None:
    """Show the traceback of a held job."""
    held = asyncio.run(monitor.listed("held", sys.maxsize))
    trace = next((job.trace for job in held if job.id == job_id), None)
    if trace is None:
        raise click.ClickException(f"No job {job_id} is held.")
    click.echo(trace)


@click.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID...]")
@click.option("--all", "every", is_flag=True, help="All that are held.")
@click.pass_obj
def retry(monitor: Monitor, ids: Sequence[int], *, every: bool) -> None:
    """Put held jobs back into the queue."""
    if every == bool(ids):
        raise click.UsageError("Name the jobs, or say --all.")
    held = [job.id for job in asyncio.run(monitor.listed("held", sys.maxsize))]
    chosen = [one for one in held if every or one in ids]
    asyncio.run(monitor.retry(chosen))
    click.echo(f"Put back: {len(chosen)}")


@click.command()
@click.argument("ids", type=int, nargs=-1, required=True, metavar="ID...")
@click.pass_obj
def discard(monitor: Monitor, ids: Sequence[int]) -> None:
    """Delete jobs that are held or waiting."""
    click.echo(f"Discarded: {asyncio.run(monitor.discard(list(ids)))}")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.pass_obj
def web(monitor: Monitor, host: str, port: int) -> None:
    """Serve pgqueuer's own page; needs the extra `referral[monitor]` and a login."""
    if not all(os.environ.get(name) for name in LOGIN):
        raise click.ClickException(f"Set {LOGIN[0]} and {LOGIN[1]}: the page can change jobs.")
    try:
        import uvicorn  # noqa: PLC0415 - of the extra
        from pgqueuer.web import create_web_app  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException("Install 'referral[monitor]' for this.") from error
    uvicorn.run(create_web_app(monitor.url), host=host, port=port, log_level="warning")


JOBS = (list_jobs, show_trace, retry, discard, web)


def _state(state: QueueStats) -> tuple[object, ...]:
    oldest = state.oldest_waiting
    age = "" if oldest is None else f"{(datetime.now(UTC) - oldest).total_seconds():.0f} s"
    return (state.kind, state.waiting, age, state.running, state.held, state.done)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    lines = [tuple(head), *(tuple(str(value) for value in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        told = (value.ljust(width) for value, width in zip(line, widths, strict=True))
        click.echo("  ".join(told).rstrip())
