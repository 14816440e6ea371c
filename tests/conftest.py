"""Real servers for the tests: containers where Docker answers, embedded ones otherwise.

`TEST_SERVERS` decides instead: `containers` or `embedded`.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest
from asgi_lifespan import LifespanManager
from dishka import Provider, Scope
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.keys import make_key_file
from referral.app import create_app
from referral.core.ports.system import Clock
from referral.settings import Settings
from tests.support.api_client import UNLIMITED_SETTINGS
from tests.support.fakes.security import FakeFingerprinter
from tests.support.fakes.system import FakeClock
from tests.support.server_processes import RedisProcess, run_postgres
from tests.support.smtp_sink import SmtpSink, run_smtp_sink

POSTGRES_IMAGE = os.environ.get("TEST_POSTGRES", "postgres:18-alpine")
REDIS_IMAGE = os.environ.get("TEST_REDIS", "redis:8-alpine")


def uses_containers() -> bool:
    """Return whether to use containers: as configured, or whether a Docker engine listens."""
    if choice := os.environ.get("TEST_SERVERS"):
        return choice == "containers"
    docker_url = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    is_unix = docker_url.scheme == "unix"
    with socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET) as probe:
        socket_address = (
            docker_url.path if is_unix else (docker_url.hostname or "", docker_url.port or 2375)
        )
        return probe.connect_ex(socket_address) == 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark contract tests, and tests that use the shared servers, with `servers`.

    The slow folder begins, so that no process is left with a long test at the end.
    """
    items.sort(key=lambda item: "integration" not in item.path.parts)
    for item in items:
        shared_servers = {"postgres_url", "redis_url"} & set(getattr(item, "fixturenames", ()))
        if shared_servers or "contracts" in item.path.parts:
            item.add_marker("servers")


ENGINE_DEFAULTS = make_engine.__kwdefaults__ or {}
RELAXED_TIMEOUTS = (
    ("referral.adapters.postgres.engine.DATABASE_TIMEOUT_SECONDS", 60.0),
    ("referral.adapters.postgres.database.POOL_STALL_SECONDS", 60.0),
    ("referral.adapters.postgres.pool.DATABASE_TIMEOUT_SECONDS", 60.0),
    ("referral.adapters.postgres.pool.POOL_STALL_SECONDS", 60.0),
    ("referral.adapters.redis.client.REPLY_POLLS", 6000),
    ("referral.adapters.redis.topology.SOCKET_TIMEOUT_SECONDS", 60.0),
)
"""Timeouts after which the service treats a server as unavailable, raised for busy machines."""


@pytest.fixture(scope="session", autouse=True)
def relaxed_timeouts() -> Iterator[pytest.MonkeyPatch]:
    """Raise the timeouts, so that a busy machine does not look like an outage."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _relax_timeouts(monkeypatch)
        yield monkeypatch


def _relax_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RELAXED_TIMEOUTS:
        monkeypatch.setattr(name, value)
    monkeypatch.setattr(make_engine, "__kwdefaults__", ENGINE_DEFAULTS | {"command_timeout": 60.0})


@pytest.fixture
def production_timeouts(relaxed_timeouts: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the timeouts of production, for tests of outages."""
    relaxed_timeouts.undo()
    yield
    _relax_timeouts(relaxed_timeouts)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server for all tests."""
    if uses_containers():
        with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
            yield container.get_connection_url()
        return
    with run_postgres() as url:
        yield url


@pytest.fixture(scope="session")
async def template_database(postgres_url: str) -> str:
    """The name of a migrated database that serves as the template of others."""
    await execute(postgres_url, "CREATE DATABASE template_referral")
    await asyncio.to_thread(migrate, replace_database(postgres_url, "template_referral"))
    return "template_referral"


@pytest.fixture(scope="module")
async def database_url(postgres_url: str, template_database: str) -> AsyncIterator[str]:
    """The URL of a migrated, empty database for one test module."""
    name = f"test_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield replace_database(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[PostgresDatabase]:
    """The adapter for the module's database."""
    engine = make_engine(database_url)
    yield PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a Redis server for all tests."""
    if uses_containers():
        with RedisContainer(REDIS_IMAGE) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
            yield f"redis://{host}:{port}/0"
        return
    server = RedisProcess()
    server.start()
    yield server.url
    server.close()


@pytest.fixture
def own_redis() -> Iterator[RedisProcess]:
    """A Redis server of its own for a test that stops or kills it."""
    server = RedisProcess()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signing key, generated once."""
    path = tmp_path_factory.mktemp("keys") / "signing.pem"
    make_key_file(path)
    return path


@pytest.fixture
def settings(database_url: str, key_file: Path, tmp_path: Path) -> Settings:
    """Settings of a service that uses the module's database."""
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        signing_key_file=str(key_file),
        worker="off",
        email_verification="off",
        **UNLIMITED_SETTINGS,
    )


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test advances."""
    return FakeClock()


class ServiceFactory(Protocol):
    """Runs a service in this process and yields an HTTP client for it."""

    def __call__(self, settings: Settings) -> AbstractAsyncContextManager[httpx.AsyncClient]: ...


@pytest.fixture
def serve(clock: FakeClock) -> ServiceFactory:
    """Start services with custom settings; they share the test's clock."""
    fakes = Provider(scope=Scope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)

    return lambda settings: run_service(settings, fakes)


@pytest.fixture
async def client(serve: ServiceFactory, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for a service in this process."""
    async with serve(settings) as client:
        yield client


@asynccontextmanager
async def run_service(
    settings: Settings, *replacements: Provider
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service in this process with some replacements, and yield an HTTP client for it."""
    app = cast("Any", create_app(settings, *replacements))
    async with LifespanManager(app) as running:
        transport = httpx.ASGITransport(running.app)
        async with httpx.AsyncClient(transport=transport, base_url=settings.public_url) as client:
            yield client


def replace_database(url: str, name: str) -> str:
    """Return the URL with another database name."""
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


async def execute(url: str, statement: str) -> None:
    """Run one statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch_value(url: str, query: str, *values: object) -> object:
    """Return one value."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query, *values)
    finally:
        await connection.close()


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    """An SMTP server that records the mails it receives."""
    with run_smtp_sink() as sink:
        yield sink
