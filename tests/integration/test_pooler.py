"""The service behind Debian's PgBouncer in transaction mode."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from msgspec.structs import replace

from referral.adapters.postgres.embedded import SYSTEM_USER
from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import API, join
from tests.support.service_process import free_port, run_command
from tests.support.steady_load import steady_load_through
from tests.support.waiting import wait_for_port, wait_until

CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
server_round_robin = 1
logfile = {folder}/log
"""


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The URL of a PgBouncer with two server connections, used in turn."""
    parts, listen = urlsplit(database_url), free_port()
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    folder = Path(tempfile.mkdtemp(prefix="referral-pooler-"))
    user, password = parts.username, parts.password or "none"
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(
            host=host, port=parts.port or 5432, user=user, password=password,
            listen=listen, folder=folder,
        )
    )  # fmt: skip
    # PgBouncer does not run as root, and only PostgreSQL's user can open its socket.
    owner = SYSTEM_USER if host.startswith("/") else "nobody"
    as_owner = ["-u", owner] if os.geteuid() == 0 else []
    if as_owner:
        shutil.chown(folder, owner)
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    assert program, "Install pgbouncer; `make test` does so on Debian as root."
    command = [program, "-q", *as_owner, str(configuration)]
    with subprocess.Popen(command) as process:  # noqa: S603 - a program of the tests
        wait_for_port(listen)
        yield f"postgresql://{user}@127.0.0.1:{listen}{parts.path}?pooler=transaction"
        process.kill()
    shutil.rmtree(folder)


@pytest.fixture
def pooled(settings: Settings, pooled_url: str) -> Settings:
    """Settings of a service behind PgBouncer."""
    return replace(settings, database_url=pooled_url)


@pytest.fixture
async def service(pooled: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service."""
    async with run_service(pooled) as client:
        yield client


async def test_requests_work_behind_a_pooler(service: httpx.AsyncClient) -> None:
    """Registration, codes, look-ups and lists work."""
    ann = await join(service)
    code = await ann.issue_code()
    found = await service.get(f"{API}/codes/lookup", params={"email": ann.email})
    assert found.json()["code"] == code["code"]
    bob = await join(service, referral_code=code["code"])
    listed = (await ann.request("GET", "/me/referrals")).json()["items"]
    assert [referral["email"] for referral in listed] == [bob.email]
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1
    assert (await service.get("/health/ready")).json() == {"database": "ok"}


async def test_concurrent_requests_share_two_connections(service: httpx.AsyncClient) -> None:
    """No prepared statement is used on a connection that does not have it."""
    async with steady_load_through(service) as tally:
        await wait_until(lambda: tally.responses.total() > 300, 60)
    assert tally.failures == {}


def test_worker_requires_a_direct_database_url(
    pooled_url: str, key_file: Path, tmp_path: Path
) -> None:
    """`run` with an inline worker and `worker` reject a pooler's URL."""
    settings = {"database_url": pooled_url, "signing_key_file": str(key_file)}
    inline = run_command(tmp_path, "run", "--port", str(free_port()), **settings)
    assert inline.returncode == 2
    assert inline.stderr.startswith("REFERRAL_WORKER: must be 'off'")
    worker = run_command(tmp_path, "worker", worker="off", **settings)
    assert worker.returncode == 1
    assert "direct URL" in worker.stderr
