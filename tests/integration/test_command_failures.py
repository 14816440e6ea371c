"""Commands whose database is gone, is not there yet, or has no place: one line and exit code 1."""

import os
import subprocess
from pathlib import Path

import pytest

from referral.adapters.failure_causes import describe_cause, explain_database_errors, host_and_port
from referral.core.errors import Unavailable
from tests.conftest import execute, replace_database
from tests.support.service_process import free_port, run_command

COMMANDS = (
    ("jobs",),
    ("jobs", "list"),
    ("jobs", "retry", "1"),
    ("jobs", "discard", "1"),
    ("migrate",),
    ("block", "ann@example.com"),
    ("create-client", "shop", "--scope", "codes:read"),
)
PASSWORD = "hunter2"


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command that failed says, which is a line."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert PASSWORD not in line
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_database_that_is_gone_is_named_with_its_cause(
    command: tuple[str, ...], key_file: Path, tmp_path: Path
) -> None:
    """Host, port and cause, and never the password."""
    port = free_port()
    url = f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/referral"
    done = run_command(tmp_path, *command, database_url=url, signing_key_file=str(key_file))
    server = f"PostgreSQL at 127.0.0.1:{port}"
    assert one_line(done) == f"Error: {server} cannot be used: Connection refused"


def test_an_unknown_host_and_an_unknown_database_are_told_apart(
    postgres_url: str, key_file: Path, tmp_path: Path
) -> None:
    """The cause is the system's or the server's own sentence."""
    key = {"signing_key_file": str(key_file)}
    unknown = f"postgresql://ann:{PASSWORD}@nowhere.invalid/referral"
    said = one_line(run_command(tmp_path, "jobs", database_url=unknown, **key))
    assert said.startswith("Error: PostgreSQL at nowhere.invalid:5432 cannot be used: ")
    missing = replace_database(postgres_url, "missing")
    said = one_line(run_command(tmp_path, "migrate", database_url=missing, **key))
    assert said.endswith('cannot be used: database "missing" does not exist')


async def test_a_database_without_a_schema_says_what_to_run(
    postgres_url: str, key_file: Path, tmp_path: Path
) -> None:
    """As after an upgrade, or before the first start."""
    await execute(postgres_url, "CREATE DATABASE empty")
    told = {
        "database_url": replace_database(postgres_url, "empty"),
        "signing_key_file": str(key_file),
    }
    for command in (("jobs",), ("create-client", "shop", "--scope", "codes:read")):
        said = one_line(run_command(tmp_path, *command, **told))
        assert said.endswith("is missing or old. Run 'referral migrate'.")
    await execute(postgres_url, "DROP DATABASE empty")


async def test_a_schema_of_a_later_release_is_told(
    postgres_url: str, template: str, key_file: Path, tmp_path: Path
) -> None:
    """As after a step back to an earlier release."""
    await execute(postgres_url, f"CREATE DATABASE later TEMPLATE {template}")
    url = replace_database(postgres_url, "later")
    await execute(url, "UPDATE alembic_version SET version_num = '9999'")
    done = run_command(tmp_path, "migrate", database_url=url, signing_key_file=str(key_file))
    assert "'9999'" in one_line(done)
    await execute(postgres_url, "DROP DATABASE later")


def test_check_names_the_cause_beside_each_part(key_file: Path, tmp_path: Path) -> None:
    """With the address of the server, and with the other parts."""
    database, redis = free_port(), free_port()
    done = run_command(
        tmp_path,
        "check",
        database_url=f"postgresql://ann:{PASSWORD}@127.0.0.1:{database}/referral",
        redis_url=f"redis://:{PASSWORD}@127.0.0.1:{redis}/0",
        signing_key_file=str(key_file),
    )
    assert done.returncode == 1
    assert PASSWORD not in done.stdout + done.stderr
    asked = done.stdout.rpartition("asked ")[2].splitlines()
    for part, port in (("database", database), ("redis", redis)):
        [line] = [line for line in asked if line.startswith(part)]
        assert f"does not answer: 127.0.0.1:{port}, " in line
        assert "Connection refused" in line


@pytest.mark.parametrize(
    "command", [one for one in COMMANDS if one != ("migrate",)] + [("check",), ("worker",)], ids=str
)
def test_no_other_command_makes_a_database(command: tuple[str, ...], tmp_path: Path) -> None:
    """In an empty folder `run` and `migrate` make one; the others say so."""
    folder = tmp_path / "data"
    said = one_line(run_command(folder, *command))
    assert said == f"Error: There is no database in {folder}. 'referral migrate' makes one."
    assert not folder.exists()


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path, command: str) -> None:
    """The path and the cause."""
    file = tmp_path / "data"
    file.write_text("")
    said = one_line(run_command(file, command))
    assert str(file) in said
    assert "cannot be used: " in said


@pytest.mark.parametrize("command", [("jobs",), ("jobs", "list"), ("worker",)], ids=" ".join)
def test_jobs_are_not_managed_by_way_of_a_pooler(
    command: tuple[str, ...], key_file: Path, tmp_path: Path
) -> None:
    """Neither done nor shown: a queue needs LISTEN and prepared statements."""
    url = "postgresql://ann@127.0.0.1:1/name?pooler=transaction"
    told = {"database_url": url, "signing_key_file": str(key_file), "worker": "off"}
    assert "direct address" in one_line(run_command(tmp_path, *command, **told))


def test_several_hosts_end_the_start_with_2(key_file: Path, tmp_path: Path) -> None:
    """In one line, and nothing is started."""
    url = f"postgresql://ann:{PASSWORD}@one:5432,two:5433/referral"
    for command in ("run", "migrate", "check"):
        done = run_command(
            tmp_path / "data", command, database_url=url, signing_key_file=str(key_file)
        )
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line == "REFERRAL_DATABASE_URL: names several hosts; only one is supported"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgresql://ann:x@db.example/name", "db.example:5432"),
        ("postgresql://db.example:6432/name", "db.example:6432"),
        ("postgresql://[::1]/name", "[::1]:5432"),
        ("postgresql://ann@/name?host=/var/run/postgresql", "/var/run/postgresql"),
        ("rediss://:x@cache.example", "cache.example:6379"),
    ],
)
def test_a_server_is_named_by_host_and_port(url: str, server: str) -> None:
    """Without its user, its password and its database."""
    assert host_and_port(url) == server


def test_a_file_that_cannot_be_read_is_not_blamed_on_the_database(tmp_path: Path) -> None:
    """The file is named instead of the server."""
    missing = tmp_path / "missing"
    with (
        pytest.raises(Unavailable, match=f"^{missing} cannot be used: No such file"),
        explain_database_errors("postgresql://host/name"),
    ):
        missing.read_bytes()


def test_the_cause_is_at_the_bottom_of_a_chain() -> None:
    """A chain ends in one line; an error without a text is told by its class."""
    error = ValueError("above")
    error.__cause__ = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert describe_cause(error) == os.strerror(111)
    assert describe_cause(TimeoutError()) == "no answer in time"
    assert describe_cause(ValueError("one\ntwo")) == "one"
    assert describe_cause(KeyError()) == "KeyError"
