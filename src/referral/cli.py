"""The `referral` command."""

import asyncio
import fcntl
import multiprocessing
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import structlog
from dishka import AsyncContainer

from referral import commands
from referral.adapters.failures import explained, server_of
from referral.adapters.jobs.admin import Monitor
from referral.adapters.observability.logs import set_up_logs
from referral.adapters.postgres.migrations import migrate as migrate_database
from referral.adapters.postgres.pooler import is_pooled
from referral.adapters.private_folders import (
    check_data_folder,
    make_data_folder,
    make_private_folder,
)
from referral.container import make_container
from referral.container.configuration import (
    database_url,
    embedded_postgres,
    metrics_folder,
    parts_in_use,
    private_folders,
)
from referral.core.entities.clients import Client, Scope
from referral.core.entities.users import Role, User
from referral.core.errors import ReferralError, Unavailable
from referral.core.use_cases.accounts import BlockAccount, NewAccount, Register
from referral.core.use_cases.clients import GRANTABLE, CreateClient
from referral.core.use_cases.health import CheckParts, PartHealth
from referral.server import free_address, serve_on
from referral.settings import BadSettingsError, Settings, read_settings, unknown_settings

T = TypeVar("T")

DRAIN_SECONDS = 2
"""How long to go on serving after SIGTERM, so that balancers notice."""

BAD_SETTINGS = 2


@click.group()
def main() -> None:
    """A self-hosted referral system service."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--drain",
    default=DRAIN_SECONDS,
    show_default=True,
    type=click.IntRange(0, 60),
    help="Seconds to go on serving after SIGTERM, while readiness says 503.",
)
def run(host: str, port: int, workers: int, drain: int) -> None:
    """Serve the API; with the embedded database, start and migrate that first."""
    settings = _settings()
    address = free_address(host, port)
    with _only_service(settings.data_dir), _database(settings, makes=True):
        _make_folders(settings)
        if settings.database_url is None:
            _migrate_apart(database_url(settings))
        log = structlog.get_logger()
        log.info("starting", **parts_in_use(settings))
        shutil.rmtree(metrics_folder(settings), ignore_errors=True)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("docs", swagger=f"{url}/docs", redoc=f"{url}/redoc")
        serve_on(address, port, workers, drain)
        log.info("stopped")


@main.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = _settings()
    with _using_database(settings, makes=True):
        migrate_database(database_url(settings))
    click.echo("The schema is up to date.")


@main.command("worker")
def work() -> None:
    """Do the jobs beside the API, on this machine or another; several may run."""
    settings = _settings()
    _refuse_pooler(settings)
    with _database(settings):
        commands.work(settings)


@main.group(invoke_without_command=True)
@click.pass_context
def jobs(context: click.Context) -> None:
    """Show the jobs, and put back or discard those that are held."""
    settings = _settings()
    _refuse_pooler(settings)
    context.with_resource(_using_database(settings))
    context.obj = Monitor(database_url(settings))
    if context.invoked_subcommand is None:
        commands.show_states(context.obj)


for command in commands.JOBS:
    jobs.add_command(command)


@main.command()
@click.argument("email")
def create_admin(email: str) -> None:
    """Make an account that sees every user's referrals.

    The password is asked for, or read from standard input. There is no option for it: the
    arguments of a process are for everyone to see.
    """
    password = (
        click.prompt("Password", hide_input=True, confirmation_prompt=True)
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\r\n")
    )
    wanted = NewAccount(email, password, role=Role.ADMIN)

    async def create(container: AsyncContainer) -> User:
        return await (await container.get(Register))(wanted)

    user = _with_parts(create)
    click.echo(f"{user.email} is an admin now.")


@main.command()
@click.argument("email")
@click.option("--undo", is_flag=True, help="Let them in again.")
def block(email: str, *, undo: bool) -> None:
    """Shut a user out: no session goes on, and no password begins another."""

    async def change(container: AsyncContainer) -> User:
        return await (await container.get(BlockAccount))(email, undo=undo)

    user = _with_parts(change)
    click.echo(f"{user.email} may log in again." if undo else f"{user.email} is shut out.")


@main.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    callback=lambda _, __, values: _scopes(values),
    help=f"What it may do: {', '.join(sorted(GRANTABLE))}. May be given several times.",
)
def create_client(name: str, scopes: list[Scope]) -> None:
    """Let another service in, and print its id and its secret, which is not shown again."""

    async def create(container: AsyncContainer) -> tuple[Client, str]:
        return await (await container.get(CreateClient))(name, scopes)

    client, secret = _with_parts(create)
    click.echo(f"client_id={client.id}\nclient_secret={secret}")


@main.command()
def check() -> None:
    """Say which parts are in use, and whether they answer; ends with 1 when one does not."""
    settings = _settings()

    async def ask(container: AsyncContainer) -> list[PartHealth]:
        return await (await container.get(CheckParts))()

    states = _with_parts(ask)
    commands.show_parts(parts_in_use(settings), states, _servers(settings))
    sys.exit(0 if all(state.answers for state in states) else 1)


def _scopes(values: Sequence[str]) -> list[Scope]:
    named = [name for value in values for name in value.replace(",", " ").split()]
    unknown = set(named) - GRANTABLE
    if unknown or not named:
        fault = f"{', '.join(sorted(unknown)) or 'nothing'} is no scope that a client can have"
        raise click.BadParameter(fault)
    return [Scope(name) for name in named]


def _with_parts(work: Callable[[AsyncContainer], Awaitable[T]]) -> T:
    """Do something with the service's parts, whether the service runs or not."""
    settings = _settings()

    async def run() -> T:
        container = make_container(settings)
        try:
            return await work(container)
        finally:
            await container.close()

    with _using_database(settings):
        return asyncio.run(run())


def _migrate_apart(url: str) -> None:
    """Migrate in a process of its own: what Alembic needs of memory ends with it."""
    migrating = multiprocessing.get_context("fork").Process(target=_migrate, args=(url,))
    migrating.start()
    migrating.join()
    if migrating.exitcode:
        raise click.ClickException("The database could not be migrated.")


def _migrate(url: str) -> None:
    try:
        with explained(url):
            migrate_database(url)
    except Unavailable as error:
        click.echo(error.detail, err=True)
        sys.exit(1)


def _refuse_pooler(settings: Settings) -> None:
    if is_pooled(settings.database_url or ""):
        fault = "REFERRAL_DATABASE_URL is a pooler: jobs need a direct address of PostgreSQL."
        raise click.ClickException(fault)


def _servers(settings: Settings) -> dict[str, str]:
    """Return the addresses of the servers that `referral check` asks, by the part's name."""
    named = {"database": database_url(settings), "redis": settings.redis_url}
    return {part: server_of(url) for part, url in named.items() if url}


def _settings() -> Settings:
    try:
        settings = read_settings(os.environ)
    except BadSettingsError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        sys.exit(BAD_SETTINGS)
    set_up_logs(settings.log_format, settings.log_level)
    for name in unknown_settings(os.environ):
        structlog.get_logger().warning("there is no such setting", name=name)
    return settings


@contextmanager
def _using_database(settings: Settings, *, makes: bool = False) -> Iterator[None]:
    """Run the database while the block uses it; a failure of the block ends in one line."""
    with _database(settings, makes=makes):
        try:
            with explained(database_url(settings)):
                yield
        except ReferralError as error:
            raise click.ClickException(error.detail or type(error).__name__) from error


@contextmanager
def _database(settings: Settings, *, makes: bool = False) -> Iterator[None]:
    """Keep the embedded database running for as long as it is needed."""
    embedded = embedded_postgres(settings)
    if embedded is None:
        yield
        return
    with _faults_in_one_line():
        if not (makes or embedded.exists):
            fault = f"There is no database in {settings.data_dir}. 'referral migrate' makes one."
            raise click.ClickException(fault)
        embedded.start()
    try:
        yield
    finally:
        embedded.stop()


def _make_folders(settings: Settings) -> None:
    """Make the private folders before the server's processes need them."""
    with _faults_in_one_line():
        for folder in private_folders(settings):
            make_private_folder(folder)


@contextmanager
def _faults_in_one_line() -> Iterator[None]:
    """Turn what is wrong with a folder into an error that the command shows in one line."""
    try:
        yield
    except Unavailable as error:
        raise click.ClickException(error.detail) from error
    except OSError as error:
        fault = f"{error.filename} cannot be used: {error.strerror}."
        raise click.ClickException(fault) from error


@contextmanager
def _only_service(folder: Path) -> Iterator[None]:
    """Hold the data folder; a second service would sign and mail beside the first."""
    with _faults_in_one_line():
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
