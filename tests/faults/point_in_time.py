"""The database lost, and restored to a point in time by pgBackRest (docs/operations.md).

With Debian's packages: pgBackRest follows PostgreSQL's releases later than the
embedded server does.
"""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from referral.adapters.postgres.migrations import migrate
from tests.conftest import fetch_value
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.support.api_client import API, PASSWORD, Member, join, log_in
from tests.support.postgres_servers import (
    PostgresServer,
    closing_server,
    process_owner,
    server_folder,
)
from tests.support.service_process import run_command
from tests.support.waiting import wait_for_value

CONFIGURATION = """\
[global]
repo1-path={folder}/repository
repo1-retention-full=2
log-path={folder}
lock-path={folder}
spool-path={folder}
start-fast=y
[referral]
pg1-path={server.data}
pg1-port={server.port}
pg1-socket-path={folder}
pg1-user=postgres
"""
LAST_SEGMENT = "SELECT pg_walfile_name(pg_switch_wal())"
ARCHIVED_SEGMENT = "SELECT last_archived_wal FROM pg_stat_archiver"


@dataclass(frozen=True)
class BackedUpServer:
    """A server whose log is archived by pgBackRest."""

    server: PostgresServer
    folder: Path

    def run(self, *arguments: str) -> None:
        """Run pgBackRest as the server's user."""
        completed = subprocess.run(  # noqa: S603 - a program of the tests
            [*self._command, *arguments],
            **process_owner(),
            check=False,
            capture_output=True,
            text=True,
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr

    def start(self) -> None:
        """Run the server, and wait until it has recovered."""
        self.server.start(
            archive_mode="on",
            archive_command=f"{' '.join(self._command)} archive-push %p",
            restore_command=f"{' '.join(self._command)} archive-get %f %p",
            unix_socket_directories=str(self.folder),
        )

    def lose(self) -> None:
        """Kill the server and delete its data."""
        self.server.kill()
        shutil.rmtree(self.server.data)

    async def archive(self) -> None:
        """Wait until all that is committed is archived."""
        url = self.server.url
        last = str(await fetch_value(url, LAST_SEGMENT))

        async def is_archived() -> bool:
            return str(await fetch_value(url, ARCHIVED_SEGMENT) or "") >= last

        await wait_for_value(is_archived)

    @property
    def _command(self) -> list[str]:
        return ["pgbackrest", f"--config={self.folder}/pgbackrest.conf", "--stanza=referral"]


@dataclass(frozen=True)
class Story:
    """Users before and after a point in time: who was erased, and who was not."""

    target: str
    referrer: Member
    referred: Member
    erased: Member
    erased_later: Member
    joined_later: Member


def run() -> ScenarioReport:
    """Restore a point in time, and erase again who was erased after it."""
    report = ScenarioReport()
    with make_testbed() as testbed, _backed_up_server() as backed_up:
        url = backed_up.server.url
        migrate(url)
        backed_up.run("stanza-create")
        backed_up.run("backup", "--type=full")
        with testbed.service(database_url=url) as service:
            story = asyncio.run(_write(service.url, backed_up))
        erasures = _run_admin(testbed, url, "audit", "--action", "user.erased", "--json")
        erased = [record["subject"] for record in json.loads(erasures.stdout)]
        backed_up.lose()
        started = time.monotonic()
        point = f"--target={story.target}"
        backed_up.run("restore", "--type=time", point, "--target-action=promote")
        backed_up.start()
        asyncio.run(_wait_until_promoted(url))
        report.record(restored_after_seconds=time.monotonic() - started)
        testbed.redis.kill()
        testbed.redis.start()
        with testbed.service(database_url=url) as service:
            asyncio.run(_check_restored(report, service.url, story))
            result = _run_admin(testbed, url, "erase", *erased)
            report.record(erased_again=result.stdout.strip())
            asyncio.run(_check_erased(report, service.url, url, story))
    return report


@contextmanager
def _backed_up_server() -> Iterator[BackedUpServer]:
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    with server_folder() as folder, closing_server(folder, binaries) as server:
        (folder / "pgbackrest.conf").write_text(CONFIGURATION.format(folder=folder, server=server))
        backed_up = BackedUpServer(server, folder)
        server.initialize()
        backed_up.start()
        yield backed_up


async def _write(url: str, backed_up: BackedUpServer) -> Story:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        referrer = await join(client)
        code = (await referrer.issue_code())["code"]
        referred = await join(client, referral_code=code)
        erased, erased_later = await join(client), await join(client)
        await _erase(erased)
        target = await fetch_value(backed_up.server.url, "SELECT clock_timestamp()::text")
        await _erase(erased_later)
        joined_later = await join(client)
    await backed_up.archive()
    return Story(str(target), referrer, referred, erased, erased_later, joined_later)


async def _erase(member: Member) -> None:
    response = await member.request("DELETE", "/me", json={"password": PASSWORD})
    assert response.status_code == 204, response.text


def _run_admin(testbed: Testbed, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(
        testbed.folder / "operator", "admin", *arguments, **testbed.settings(database_url=url)
    )


async def _wait_until_promoted(url: str) -> None:
    await wait_for_value(lambda: fetch_value(url, "SELECT NOT pg_is_in_recovery()"))


async def _check_restored(report: ScenarioReport, url: str, story: Story) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        headers = story.referrer.headers
        me = (await client.get(f"{API}/me", headers=headers)).json()
        users = (story.referred, story.erased, story.erased_later, story.joined_later)
        statuses = [(await log_in(client, user.email)).status_code for user in users]
    report.check(holds=me.get("referral_count") == 1, promise="referrals are restored")
    report.check(
        holds=statuses == [200, 400, 200, 400],
        promise="the users are those of the point in time",
    )


async def _check_erased(report: ScenarioReport, url: str, database_url: str, story: Story) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        users = (story.referred, story.erased_later)
        statuses = [(await log_in(client, user.email)).status_code for user in users]
    rows = await fetch_value(database_url, "SELECT count(*) FROM users WHERE erased_at IS NULL")
    report.check(holds=statuses == [200, 400], promise="who was erased later is erased again")
    report.check(holds=rows == 2, promise="nobody else was erased")
