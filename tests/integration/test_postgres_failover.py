"""PostgreSQL with several hosts: failover, old primaries, standbys, and servers that are down."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.jobs.worker import JobWorker
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import QuickClosingConnection, make_engine
from referral.adapters.postgres.errors import NoPrimaryError
from referral.adapters.postgres.migrations import migrate
from referral.adapters.postgres.primary import PrimaryConnector
from referral.core.entities.jobs import Job, JobContext
from referral.settings import Settings
from tests.conftest import ServiceFactory, execute, fetch_value
from tests.integration.conftest import LEAP_DAY
from tests.integration.job_queue import enqueue, make_jobs
from tests.support.api_client import UNLIMITED_SETTINGS, join, new_email, register
from tests.support.fakes.security import FakeFingerprinter
from tests.support.postgres_servers import PostgresServer, closing_server, server_folder
from tests.support.service_process import free_port, run_command
from tests.support.waiting import measure_thread_time, wait_for_value, wait_until

pytestmark = pytest.mark.usefixtures("production_timeouts")

MAX_SECONDS = 3.6
"""Maximum duration of a 503 in seconds: a statement, a connection and a search, and a margin."""

OWN_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'referral'"
ACCOUNTS = "SELECT count(*) FROM users WHERE email = $1"


@dataclass(frozen=True)
class Pair:
    """A primary with a synchronous standby."""

    primary: PostgresServer
    standby: PostgresServer

    @property
    def url(self) -> str:
        """The URL of both, and of a host before them that is down."""
        hosts = f"127.0.0.1:{free_port()},{self.primary.address},{self.standby.address}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"


@pytest.fixture(scope="module")
def template() -> Iterator[tuple[Path, PostgresServer]]:
    """A folder, and a stopped server with the schema, which others copy."""
    with server_folder() as folder, closing_server(folder) as server:
        server.initialize("--wal-segsize=1")  # small files, which are copied
        server.start()
        migrate(server.url)
        server.stop()
        yield folder, server


@pytest.fixture
def pair(template: tuple[Path, PostgresServer]) -> Iterator[Pair]:
    """A primary with a synchronous standby; both run."""
    folder, source = template
    with closing_server(folder) as primary, closing_server(folder) as standby:
        for server in (primary, standby):
            server.copy(source)
        primary.start(synchronous_standby_names="*")
        standby.start_standby(primary.port)
        yield Pair(primary, standby)


@pytest.fixture
def settings_for(key_file: Path, tmp_path: Path) -> Callable[[str], Settings]:
    """Make the settings of a service that uses a database."""

    def make(url: str) -> Settings:
        return Settings(
            data_dir=tmp_path,
            database_url=url,
            signing_key_file=str(key_file),
            worker="off",
            email_verification="off",
            **UNLIMITED_SETTINGS,
        )

    return make


async def register_soon(client: httpx.AsyncClient) -> str:
    """Register until it succeeds; every other response is a 503 in time. Return the address."""
    email = new_email()

    async def is_registered() -> bool:
        async with measure_thread_time() as elapsed:
            response = await register(client, email)
        assert elapsed.seconds < MAX_SECONDS
        if response.status_code != 409:  # a COMMIT whose response was lost
            assert response.status_code in {201, 503}, response.text
            assert response.status_code == 201 or response.headers["Retry-After"].isdigit()
        return response.status_code != 503

    await wait_for_value(is_registered)
    return email


async def assert_unavailable(client: httpx.AsyncClient) -> None:
    """Check that reads and writes get 503."""
    for response in (await register(client), await client.get("/health/ready")):
        assert response.status_code == 503
    assert (await client.get("/health/live")).status_code == 200


async def has_no_connections(server: PostgresServer) -> bool:
    """Return whether the service has closed its connections to a server."""
    return await fetch_value(server.url, OWN_CONNECTIONS) == 0


async def server_port(connector: PrimaryConnector) -> object:
    """Connect, and return the port of the server."""
    connection = await connector.connect(timeout=10)
    try:
        return await connection.fetchval("SELECT inet_server_port()")
    finally:
        await connection.close()


async def test_service_goes_on_after_a_failover(
    pair: Pair, serve: ServiceFactory, settings_for: Callable[[str], Settings]
) -> None:
    """No acknowledged write is lost, and the old primary gets none when it comes back."""
    async with serve(settings_for(pair.url)) as client:
        ann = await join(client)
        assert (await ann.request("GET", "/me")).status_code == 200
        await asyncio.to_thread(pair.primary.kill)
        await assert_unavailable(client)
        await asyncio.to_thread(pair.standby.promote)
        await register_soon(client)
        assert (await ann.request("GET", "/me")).json()["email"] == ann.email
        await asyncio.to_thread(pair.primary.start)
        email = await register_soon(client)
        assert await fetch_value(pair.standby.url, ACCOUNTS, email) == 1
        assert await fetch_value(pair.primary.url, ACCOUNTS, email) == 0
        await asyncio.to_thread(pair.standby.kill)
        await assert_unavailable(client)


async def test_frozen_primary_loses_its_connections(
    pair: Pair, serve: ServiceFactory, settings_for: Callable[[str], Settings]
) -> None:
    """When it runs again, it is an old primary without connections."""
    async with serve(settings_for(pair.url)) as client:
        ann = await join(client)
        assert (await ann.request("GET", "/me")).status_code == 200
        pair.primary.signal(signal.SIGSTOP)
        assert (await register(client)).status_code == 503
        await asyncio.to_thread(pair.standby.promote)
        await register_soon(client)
        assert await server_port(PrimaryConnector(pair.url)) == pair.standby.port
        pair.primary.signal(signal.SIGCONT)
        await wait_for_value(lambda: has_no_connections(pair.primary))
        email = await register_soon(client)
        assert await fetch_value(pair.standby.url, ACCOUNTS, email) == 1


async def test_old_primary_that_runs_on_loses_its_connections(
    pair: Pair, serve: ServiceFactory, settings_for: Callable[[str], Settings]
) -> None:
    """Where nobody has stopped it; a new process finds the new primary too."""
    async with serve(settings_for(pair.url)) as client:
        await register_soon(client)
        assert not await has_no_connections(pair.primary)
        await asyncio.to_thread(pair.standby.promote)
        await wait_for_value(lambda: has_no_connections(pair.primary))
        email = await register_soon(client)
        assert await fetch_value(pair.standby.url, ACCOUNTS, email) == 1
    assert await server_port(PrimaryConnector(pair.url)) == pair.standby.port


async def test_read_only_server_means_503(
    pair: Pair, serve: ServiceFactory, settings_for: Callable[[str], Settings]
) -> None:
    """Also with a single host; its connections are dropped, and it goes on by itself."""
    async with serve(settings_for(pair.primary.url)) as client:
        ann = await join(client)
        await set_read_only(pair.primary, "on")
        await wait_for_value(lambda: is_read_only(pair.primary))
        for _ in range(3):
            response = await ann.request("POST", "/me/codes", json={"lifetime_minutes": 60})
            assert response.status_code == 503
            assert response.headers["Retry-After"].isdigit()
        await assert_unavailable(client)
        await set_read_only(pair.primary, "off")
        await register_soon(client)


async def set_read_only(server: PostgresServer, value: str) -> None:
    """Change the default of all sessions."""
    await execute(server.url, f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await execute(server.url, "SELECT pg_reload_conf()")


async def is_read_only(server: PostgresServer) -> bool:
    """Return whether new sessions cannot write."""
    return await fetch_value(server.url, "SHOW default_transaction_read_only") == "on"


async def test_standby_alone_is_not_used(
    pair: Pair,
    serve: ServiceFactory,
    settings_for: Callable[[str], Settings],
    tmp_path: Path,
    key_file: Path,
) -> None:
    """The service starts and is not ready, and a command says what is wrong."""
    async with serve(settings_for(pair.standby.url)) as client:
        await assert_unavailable(client)
    result = await asyncio.to_thread(
        run_command,
        tmp_path,
        "migrate",
        database_url=pair.standby.url,
        signing_key_file=str(key_file),
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: PostgreSQL at {pair.standby.address} cannot be used: "
        "it is a standby, which takes no writes\n"
    )


async def test_cut_network_ends_idle_connections(pair: Pair) -> None:
    """By the system's keepalive, where no statement has a timeout."""
    sockets = []

    class ObservedConnection(QuickClosingConnection):
        def __init__(self, protocol: object, transport: asyncio.BaseTransport, *args: Any) -> None:
            super().__init__(protocol, transport, *args)
            sockets.append(transport.get_extra_info("socket"))

    connector = PrimaryConnector(pair.url)
    connection = await connector.connect(connection_class=ObservedConnection, timeout=10)
    assert sockets[-1].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sockets[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    await connection.close()


async def test_message_names_each_host(pair: Pair) -> None:
    """With what is wrong with it."""
    await asyncio.to_thread(pair.primary.kill)
    url = pair.url
    down, *_ = url.partition("@")[2].split(",")
    with pytest.raises(NoPrimaryError) as raised:
        await PrimaryConnector(url).connect(timeout=10)
    refused = "cannot be used (Connection refused)"
    assert str(raised.value) == (
        f"{down} {refused}; {pair.primary.address} {refused}; {pair.standby.address} is a standby"
    )


async def test_server_of_another_cluster_is_not_used(
    pair: Pair, template: tuple[Path, PostgresServer]
) -> None:
    """Not even if it is the only one that takes writes."""
    with closing_server(template[0]) as other:
        other.initialize()
        other.start()
        connector = PrimaryConnector(pair.url.replace("@", f"@{other.address},"))
        with pytest.raises(NoPrimaryError, match="belongs to another cluster"):
            await connector.connect(timeout=10)
        connector = PrimaryConnector(pair.url)
        assert await server_port(connector) == pair.primary.port


async def test_worker_goes_on_by_itself(pair: Pair) -> None:
    """It starts while all hosts are down, and takes jobs again after a failover."""
    done: asyncio.Queue[Job] = asyncio.Queue()

    async def handle(job: Job, _: JobContext) -> None:
        await done.put(job)

    await asyncio.to_thread(pair.primary.stop)
    await asyncio.to_thread(pair.standby.stop)
    worker = JobWorker(pair.url, handle, prune_schedule=LEAP_DAY)
    with capture_logs() as logs:
        running = asyncio.create_task(worker.run())
        await wait_until(lambda: logs)
    assert f"{pair.primary.address} cannot be used (Connection refused)" in logs[0]["cause"]
    await asyncio.to_thread(pair.primary.start)
    await asyncio.to_thread(pair.standby.start_standby, pair.primary.port)
    await enqueue_job(pair.url)
    await done.get()
    pair.primary.signal(signal.SIGSTOP)
    await asyncio.to_thread(pair.standby.promote)
    await enqueue_job(pair.url)
    await done.get()
    worker.stop()
    await running


async def enqueue_job(url: str) -> None:
    """Enqueue a job at the primary."""
    engine = make_engine(url)
    try:
        await enqueue(
            PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue), *make_jobs(1)
        )
    finally:
        await engine.dispose()
