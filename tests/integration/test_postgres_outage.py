"""The service while PostgreSQL is stopped, hangs, or drops connections."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from structlog.testing import capture_logs

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import API, UNLIMITED_SETTINGS, join
from tests.support.server_processes import NO_DURABILITY
from tests.support.waiting import measure_thread_time, wait_for_value

pytestmark = pytest.mark.usefixtures("production_timeouts")

MAX_SECONDS = 2.6
"""Maximum duration of a 503 in seconds: the promise of about 1.5 s, and a margin."""


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A database server that the test may stop."""
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    server = EmbeddedPostgres(folder, *NO_DURABILITY)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def service(
    server: EmbeddedPostgres, serve: ServiceFactory, key_file: Path, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on that server."""
    await asyncio.to_thread(migrate, server.url)
    settings = Settings(
        data_dir=tmp_path,
        database_url=server.url,
        signing_key_file=str(key_file),
        **UNLIMITED_SETTINGS,
    )
    async with serve(settings) as client:
        yield client


async def wait_until_ready(client: httpx.AsyncClient) -> None:
    """Wait until the service is ready."""

    async def is_ready() -> bool:
        return (await client.get("/health/ready")).status_code == 200

    await wait_for_value(is_ready)


async def assert_unavailable(client: httpx.AsyncClient) -> None:
    """Check that a look-up gets 503 with Retry-After in time."""
    async with measure_thread_time() as elapsed:
        response = await client.get(f"{API}/codes/lookup", params={"email": "ann@example.com"})
    assert elapsed.seconds < MAX_SECONDS
    assert response.status_code == 503
    assert response.headers["Retry-After"].isdigit()
    assert response.headers["Content-Type"] == "application/problem+json"


async def test_stopped_database_means_503_until_it_is_back(
    server: EmbeddedPostgres, service: httpx.AsyncClient
) -> None:
    """Acknowledged writes are present afterwards."""
    ann = await join(service)
    code = await ann.issue_code()
    await asyncio.to_thread(server.stop)
    await assert_unavailable(service)
    with capture_logs() as logs:
        assert (await service.get("/confirm?token=unknown")).status_code == 503
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["unavailable"]
    assert (await service.get("/health/ready")).status_code == 503
    assert (await service.get("/health/live")).status_code == 200
    await asyncio.to_thread(server.start)
    await wait_until_ready(service)
    found = await service.get(f"{API}/codes/lookup", params={"email": ann.email})
    assert found.json()["code"] == code["code"]


async def test_hanging_database_means_503_in_time(
    server: EmbeddedPostgres, service: httpx.AsyncClient
) -> None:
    """Every process of the server is stopped and continued."""
    ann = await join(service)
    assert (await ann.request("GET", "/me")).status_code == 200
    processes = await server_processes(server)
    signal_all(processes, signal.SIGSTOP)
    try:
        async with measure_thread_time() as elapsed:
            assert (await ann.request("GET", "/me")).status_code == 503
        assert elapsed.seconds < MAX_SECONDS
        await assert_unavailable(service)
        await asyncio.gather(*(assert_unavailable(service) for _ in range(30)))
    finally:
        signal_all(processes, signal.SIGCONT)
    await wait_until_ready(service)


async def test_terminated_connections_are_replaced(
    server: EmbeddedPostgres, service: httpx.AsyncClient
) -> None:
    """After the loss of all connections the service works without a restart."""
    ann = await join(service)
    admin = await asyncpg.connect(server.url)
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'referral'"
    )
    for _ in range(5):
        await admin.execute(query)
        response = await ann.request("GET", "/me")
        assert response.status_code in {200, 503}
        await wait_until_ready(service)
    await admin.close()


async def server_processes(server: EmbeddedPostgres) -> list[int]:
    """Return the process ids of the postmaster and its backends."""
    connection = await asyncpg.connect(server.url)
    rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    postmaster = await connection.fetchval(
        "SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)::int"
    )
    await connection.close()
    return [postmaster, *(row["pid"] for row in rows)]


def signal_all(processes: list[int], number: signal.Signals) -> None:
    """Send a signal to each process."""
    for process in processes:
        os.kill(process, number)
