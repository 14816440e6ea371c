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
    check_redis,
    folder_errors_in_one_line,
    running_database,
    settings_from_environment,
    using_database,
)
from referral.container.configuration import (
    adapters_in_use,
    database_url,
    metrics_folder,
    private_folders,
)
from referral.core.errors import Unavailable
from referral.server import local_url, resolve_listen_ip, run_server
from referral.settings import ENV_PREFIX, Settings

PUBLIC_URL_ENV = f"{ENV_PREFIX}PUBLIC_URL"

DEFAULT_DRAIN_SECONDS = 2
"""How long to serve on after SIGTERM, so that load balancers notice that readiness is 503."""


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The host name or IP address to listen on.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="The port to listen on.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="The number of server processes.",
)
@click.option(
    "--drain",
    default=DEFAULT_DRAIN_SECONDS,
    show_default=True,
    type=click.IntRange(0, 60),
    help="Seconds to serve on after SIGTERM, while readiness is 503.",
)
def run(host: str, port: int, workers: int, drain: int) -> None:
    """Serve the API. The embedded database, if used, is started and migrated first."""
    settings = settings_from_environment()
    check_redis(settings)
    listen_ip = resolve_listen_ip(host, port)
    url = local_url(host, listen_ip, port)
    # The worker processes read the settings from the environment.
    if not os.environ.get(PUBLIC_URL_ENV, "").strip():
        os.environ[PUBLIC_URL_ENV] = url
    with _locked_data_folder(settings.data_dir), running_database(settings, create=True):
        _make_folders(settings)
        if settings.database_url is None:
            _migrate_in_subprocess(database_url(settings))
        log = structlog.get_logger()
        log.info("starting", **adapters_in_use(settings))
        shutil.rmtree(metrics_folder(settings), ignore_errors=True)
        log.info("docs", swagger=f"{url}/docs", redoc=f"{url}/redoc")
        run_server(listen_ip, port, workers, drain)
        log.info("stopped")


@click.command()
def migrate() -> None:
    """Migrate the database to the current schema."""
    settings = settings_from_environment()
    with using_database(settings, create=True):
        migrate_database(database_url(settings))
    click.echo("The schema is up to date.")


def _migrate_in_subprocess(url: str) -> None:
    """Migrate in a subprocess, so that the memory that Alembic takes is freed."""
    migrating = multiprocessing.get_context("fork").Process(target=_migrate, args=(url,))
    migrating.start()
    migrating.join()
    if migrating.exitcode:
        raise click.ClickException("The migration of the database failed.")


def _migrate(url: str) -> None:
    try:
        with explain_database_errors(url):
            migrate_database(url)
    except Unavailable as error:
        click.echo(error.detail, err=True)
        sys.exit(1)


def _make_folders(settings: Settings) -> None:
    """Create the private folders before the server processes start."""
    with folder_errors_in_one_line():
        for folder in private_folders(settings):
            make_private_folder(folder)


@contextmanager
def _locked_data_folder(folder: Path) -> Iterator[None]:
    """Lock the data folder: two services on it would both sign tokens and send mails."""
    with folder_errors_in_one_line():
        make_data_folder(folder)
        check_data_folder(folder)
        held = os.open(folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = (
            f"Another service uses {folder.absolute()}. Stop it, or set another REFERRAL_DATA_DIR."
        )
        raise click.ClickException(message) from None
    try:
        yield
    finally:
        os.close(held)
