"""`referral jobs`: inspect and repair the job queue."""

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from referral.adapters.jobs.admin import JOB_STATUSES, JobAdmin, QueueStats
from referral.adapters.postgres.hosts import libpq_url
from referral.cli.environment import reject_pooler, settings_from_environment, using_database
from referral.cli.output import CommandGroup, json_option, print_json, print_table
from referral.container.configuration import database_url

WEB_LOGIN_ENV = ("PGQUEUER_WEB_USER", "PGQUEUER_WEB_PASSWORD")


JOB_ID = click.IntRange(1, 2**63 - 1)


@click.group(cls=CommandGroup, invoke_without_command=True)
@json_option
@click.pass_context
def jobs(context: click.Context, *, as_json: bool) -> None:
    """Count the jobs by kind; the subcommands list, retry and discard jobs."""
    if context.invoked_subcommand is None:
        _show_stats(as_json=as_json)
    elif as_json:
        raise click.UsageError(f"Put --json after '{context.invoked_subcommand}'.")


@contextmanager
def _job_admin() -> Iterator[JobAdmin]:
    """Run the database during the block; the options of the command are valid by then."""
    settings = settings_from_environment()
    reject_pooler(settings)
    with using_database(settings):
        yield JobAdmin(database_url(settings))


def _show_stats(*, as_json: bool) -> None:
    """Print the number of waiting, running and held jobs of each kind."""
    with _job_admin() as admin:
        stats = asyncio.run(admin.stats())
    if as_json:
        print_json(stats)
        return
    rows = [_queue_row(each) for each in stats]
    print_table(("kind", "waiting", "oldest", "running", "held", "done in an hour"), rows)


@jobs.command("list")
@click.option(
    "--status",
    default="held",
    show_default=True,
    type=click.Choice(list(JOB_STATUSES)),
    help="The jobs to list; held ones have failed for good.",
)
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="The maximum number of jobs.",
)
@json_option
def list_jobs(status: str, limit: int, *, as_json: bool) -> None:
    """List jobs with their last error, oldest first."""
    with _job_admin() as admin:
        jobs = asyncio.run(admin.list_jobs(status, limit))
    if as_json:
        print_json(jobs)
        return
    rows = [
        (job.id, job.kind, job.status, job.attempts, _format_minute(job.created), job.error)
        for job in jobs
    ]
    print_table(("id", "kind", "status", "attempts", "since", "last error"), rows)


@jobs.command("trace")
@click.argument("job_id", type=JOB_ID, metavar="ID")
def show_trace(job_id: int) -> None:
    """Show the traceback of a held job."""
    with _job_admin() as admin:
        held = asyncio.run(admin.list_jobs("held", sys.maxsize))
    trace = next((job.traceback for job in held if job.id == job_id), None)
    if trace is None:
        raise click.ClickException(f"There is no held job {job_id}.")
    click.echo(trace)


@jobs.command()
@click.argument("ids", type=JOB_ID, nargs=-1, metavar="[ID...]")
@click.option("--all", "all_held", is_flag=True, help="Retry all held jobs.")
@json_option
def retry(ids: Sequence[int], *, all_held: bool, as_json: bool) -> None:
    """Queue held jobs again."""
    if all_held == bool(ids):
        raise click.UsageError("Pass job ids or --all.")
    with _job_admin() as admin:
        held = [job.id for job in asyncio.run(admin.list_jobs("held", sys.maxsize))]
        chosen = [job_id for job_id in held if all_held or job_id in ids]
        asyncio.run(admin.retry(chosen))
    _report("requeued", chosen, as_json=as_json)
    _require_all(ids, chosen, "No held job has the id")


@jobs.command()
@click.argument("ids", type=JOB_ID, nargs=-1, required=True, metavar="ID...")
@json_option
def discard(ids: Sequence[int], *, as_json: bool) -> None:
    """Delete held or waiting jobs."""
    with _job_admin() as admin:
        discarded = asyncio.run(admin.discard(list(ids)))
    _report("discarded", discarded, as_json=as_json)
    _require_all(ids, discarded, "No held or waiting job has the id")


@jobs.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="The port to listen on.",
)
def web(host: str, port: int) -> None:
    """Serve pgqueuer's dashboard; needs the extra `referral[monitor]` and a login."""
    if not all(os.environ.get(name) for name in WEB_LOGIN_ENV):
        raise click.ClickException(
            f"Set {WEB_LOGIN_ENV[0]} and {WEB_LOGIN_ENV[1]}: the dashboard can change jobs."
        )
    try:
        import uvicorn  # noqa: PLC0415 - of the extra
        from pgqueuer.web import create_web_app  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException("Install 'referral[monitor]' to use this command.") from error
    with _job_admin() as admin:
        uvicorn.run(create_web_app(libpq_url(admin.url)), host=host, port=port, log_level="warning")


def _report(done: str, ids: Sequence[int], *, as_json: bool) -> None:
    if as_json:
        print_json({done: ids})
    else:
        click.echo(f"{done.capitalize()}: {len(ids)}")


def _require_all(ids: Iterable[int], found: Sequence[int], message: str) -> None:
    """Raise `ClickException` with the ids that were not found; the others are done."""
    if missing := sorted(set(ids) - set(found)):
        raise click.ClickException(f"{message} {', '.join(map(str, missing))}.")


def _queue_row(stats: QueueStats) -> tuple[object, ...]:
    oldest = stats.oldest_waiting
    age = "" if oldest is None else f"{(datetime.now(UTC) - oldest).total_seconds():.0f} s"
    return (stats.kind, stats.waiting, age, stats.running, stats.held, stats.done)


def _format_minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"
