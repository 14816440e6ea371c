"""`referral jobs`: inspect and repair the job queue."""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from referral.adapters.jobs.admin import JOB_STATUSES, JobAdmin, QueueStats
from referral.cli.environment import reject_pooler, settings_from_environment, using_database
from referral.cli.text_tables import print_table
from referral.container.configuration import database_url

WEB_LOGIN_ENV = ("PGQUEUER_WEB_USER", "PGQUEUER_WEB_PASSWORD")


@click.group(invoke_without_command=True)
@click.pass_context
def jobs(context: click.Context) -> None:
    """Show the job queue; retry or discard held jobs."""
    settings = settings_from_environment()
    reject_pooler(settings)
    context.with_resource(using_database(settings))
    context.obj = JobAdmin(database_url(settings))
    if context.invoked_subcommand is None:
        _show_stats(context.obj)


def _show_stats(admin: JobAdmin) -> None:
    """Print the number of waiting, running and held jobs of each kind."""
    rows = [_queue_row(stats) for stats in asyncio.run(admin.stats())]
    print_table(("kind", "waiting", "oldest", "running", "held", "done in an hour"), rows)


@jobs.command("list")
@click.option("--status", default="held", show_default=True, type=click.Choice(list(JOB_STATUSES)))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.pass_obj
def list_jobs(admin: JobAdmin, status: str, limit: int) -> None:
    """List jobs with their last error, oldest first."""
    jobs = asyncio.run(admin.list_jobs(status, limit))
    rows = [
        (job.id, job.kind, job.status, job.attempts, _format_minute(job.created), job.error)
        for job in jobs
    ]
    print_table(("id", "kind", "status", "attempts", "since", "last error"), rows)


@jobs.command("trace")
@click.argument("job_id", type=int, metavar="ID")
@click.pass_obj
def show_trace(admin: JobAdmin, job_id: int) -> None:
    """Show the traceback of a held job."""
    held = asyncio.run(admin.list_jobs("held", sys.maxsize))
    trace = next((job.traceback for job in held if job.id == job_id), None)
    if trace is None:
        raise click.ClickException(f"There is no held job {job_id}.")
    click.echo(trace)


@jobs.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID...]")
@click.option("--all", "all_held", is_flag=True, help="Retry all held jobs.")
@click.pass_obj
def retry(admin: JobAdmin, ids: Sequence[int], *, all_held: bool) -> None:
    """Queue held jobs again."""
    if all_held == bool(ids):
        raise click.UsageError("Pass job ids or --all.")
    held = [job.id for job in asyncio.run(admin.list_jobs("held", sys.maxsize))]
    chosen = [job_id for job_id in held if all_held or job_id in ids]
    asyncio.run(admin.retry(chosen))
    click.echo(f"Requeued: {len(chosen)}")


@jobs.command()
@click.argument("ids", type=int, nargs=-1, required=True, metavar="ID...")
@click.pass_obj
def discard(admin: JobAdmin, ids: Sequence[int]) -> None:
    """Delete held or waiting jobs."""
    click.echo(f"Discarded: {asyncio.run(admin.discard(list(ids)))}")


@jobs.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535))
@click.pass_obj
def web(admin: JobAdmin, host: str, port: int) -> None:
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
    uvicorn.run(create_web_app(admin.url), host=host, port=port, log_level="warning")


def _queue_row(stats: QueueStats) -> tuple[object, ...]:
    oldest = stats.oldest_waiting
    age = "" if oldest is None else f"{(datetime.now(UTC) - oldest).total_seconds():.0f} s"
    return (stats.kind, stats.waiting, age, stats.running, stats.held, stats.done)


def _format_minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"
