"""`referral run` and `referral migrate`."""

import fcntl
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import structlog

from referral.adapters.failure_causes import explain_database_errors
from referral.adapters.postgres.migrations import migrate as migrate_database
from referral.adapters.private_folders import (
    check_data_folder,
    make_data_folder,
    make_private_folder,
)
from referral.cli.environment import (
    folder_errors_in_one_line,
    running_database,
    settings_from_environment,
    using_database,
)
from referral.container.configuration import (
    database_url,
    metrics_folder,
    parts_in_use,
    private_folders,
)
from referral.core.errors import Unavailable
from referral.server import resolve_listen_ip, run_server
from referral.settings import Settings

DEFAULT_DRAIN_SECONDS = 2
"""How long to go on serving after SIGTERM, so that balancers notice."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--drain",
    default=DEFAULT_DRAIN_SECONDS,
    show_default=True,
    type=click.IntRange(0, 60),
    help="Seconds to go on serving after SIGTERM, while readiness says 503.",
)
def run(host: str, port: int, workers: int, drain: int) -> None:
    """Serve the API; with the embedded database, start and migrate that first."""
    settings = settings_from_environment()
    listen_ip = resolve_listen_ip(host, port)
    with _locked_data_folder(settings.data_dir), running_database(settings, create=True):
        _make_folders(settings)
        if settings.database_url is None:
            _migrate_in_subprocess(database_url(settings))
        log = structlog.get_logger()
        log.info("starting", **parts_in_use(settings))
        shutil.rmtree(metrics_folder(settings), ignore_errors=True)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("docs", swagger=f"{url}/docs", redoc=f"{url}/redoc")
        run_server(listen_ip, port, workers, drain)
        log.info("stopped")


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = settings_from_environment()
    with using_database(settings, create=True):
        migrate_database(database_url(settings))
    click.echo("The schema is up to date.")


def _migrate_in_subprocess(url: str) -> None:
    """Migrate in a process of its own: what Alembic needs of memory ends with it."""
    migrating = multiprocessing.get_context("fork").Process(target=_migrate, args=(url,))
    migrating.start()
    migrating.join()
    if migrating.exitcode:
        raise click.ClickException("The database could not be migrated.")


def _migrate(url: str) -> None:
    try:
        with explain_database_errors(url):
            migrate_database(url)
    except Unavailable as error:
        click.echo(error.detail, err=True)
        sys.exit(1)


def _make_folders(settings: Settings) -> None:
    """Make the private folders before the server's processes need them."""
    with folder_errors_in_one_line():
        for folder in private_folders(settings):
            make_private_folder(folder)


@contextmanager
def _locked_data_folder(folder: Path) -> Iterator[None]:
    """Hold the data folder; a second service would sign and mail beside the first."""
    with folder_errors_in_one_line():
        make_data_folder(folder)
        check_data_folder(folder)
        held = os.open(folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fault = f"Another service runs on {folder.absolute()}. Stop it, or set REFERRAL_DATA_DIR."
        raise click.ClickException(fault) from None
    try:
        yield
    finally:
        os.close(held)
