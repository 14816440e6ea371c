"""The environment of commands: settings, database, container, and errors as one line."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click
import structlog
from dishka import AsyncContainer

from referral.adapters.failure_causes import explain_database_errors
from referral.adapters.observability.logs import configure_logging
from referral.adapters.postgres.pooler import is_pooled
from referral.adapters.redis.topology import (
    WrongTopologyError,
    check_topology,
    parse_redis_url,
)
from referral.container import make_container
from referral.container.configuration import database_url, embedded_postgres
from referral.core.errors import ReferralError, Unavailable
from referral.settings import (
    ENV_PREFIX,
    InvalidSettingsError,
    Settings,
    read_settings,
    unknown_settings,
)

T = TypeVar("T")

INVALID_SETTINGS_EXIT_STATUS = 2


def settings_from_environment() -> Settings:
    """Read the settings and configure logging; exit with 2 if a setting is invalid."""
    try:
        settings = read_settings(os.environ)
    except InvalidSettingsError as error:
        for message in error.errors:
            click.echo(message, err=True)
        sys.exit(INVALID_SETTINGS_EXIT_STATUS)
    configure_logging(settings.log_format, settings.log_level)
    for name in unknown_settings(os.environ):
        structlog.get_logger().warning("unknown setting", name=name)
    return settings


def run_with_container(command: Callable[[AsyncContainer], Awaitable[T]]) -> T:
    """Run a command with a container; the service may run meanwhile."""
    settings = settings_from_environment()

    async def run() -> T:
        container = make_container(settings)
        try:
            return await command(container)
        finally:
            await container.close()

    with using_database(settings):
        return asyncio.run(run())


@contextmanager
def using_database(settings: Settings, *, create: bool = False) -> Iterator[None]:
    """Run the database during the block; errors of the block become `ClickException`."""
    with running_database(settings, create=create):
        try:
            with explain_database_errors(database_url(settings)):
                yield
        except ReferralError as error:
            raise click.ClickException(error.detail or type(error).__name__) from error


@contextmanager
def running_database(settings: Settings, *, create: bool = False) -> Iterator[None]:
    """Run the embedded database, if configured, during the block."""
    embedded = embedded_postgres(settings)
    if embedded is None:
        yield
        return
    with folder_errors_in_one_line():
        if not (create or embedded.exists):
            message = (
                f"There is no database in {settings.data_dir}. Create it with 'referral migrate'."
            )
            raise click.ClickException(message)
        embedded.start()
    try:
        yield
    finally:
        embedded.stop()


@contextmanager
def folder_errors_in_one_line() -> Iterator[None]:
    """Convert errors of files and folders to `ClickException`, which prints one line."""
    try:
        yield
    except Unavailable as error:
        raise click.ClickException(error.detail) from error
    except OSError as error:
        message = f"{error.filename} cannot be used: {error.strerror}."
        raise click.ClickException(message) from error


def check_redis(settings: Settings) -> None:
    """Exit with 2 if Redis answers, but is not the Sentinel or the Cluster of the setting."""
    if settings.redis_url is None:
        return
    try:
        asyncio.run(check_topology(parse_redis_url(settings.redis_url)))
    except WrongTopologyError as error:
        click.echo(f"{ENV_PREFIX}REDIS_URL: {error}", err=True)
        sys.exit(INVALID_SETTINGS_EXIT_STATUS)


def reject_pooler(settings: Settings) -> None:
    """Raise if the database's URL is a pooler: jobs use LISTEN, which needs a direct connection."""
    if is_pooled(settings.database_url or ""):
        message = (
            "REFERRAL_DATABASE_URL is a pooler. Set a direct URL of PostgreSQL: jobs need LISTEN."
        )
        raise click.ClickException(message)
