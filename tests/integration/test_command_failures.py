"""Commands without a usable database print one line and exit with 1."""

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
    ("clients", "list"),
)
PASSWORD = "hunter2"


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """Check that the command failed, and return its only line of output."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert PASSWORD not in line
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unreachable_database_is_named_with_its_cause(
    command: tuple[str, ...], key_file: Path, tmp_path: Path
) -> None:
    """The line has host, port and cause, and no password."""
    port = free_port()
    url = f"postgresql://ann:{PASSWORD}@127.0.0.1:{port}/referral"
    result = run_command(tmp_path, *command, database_url=url, signing_key_file=str(key_file))
    server = f"PostgreSQL at 127.0.0.1:{port}"
    assert error_line(result) == f"Error: {server} cannot be used: Connection refused"


def test_unknown_host_and_unknown_database_differ(
    postgres_url: str, key_file: Path, tmp_path: Path
) -> None:
    """The cause is the message of the system or of the server."""
    key = {"signing_key_file": str(key_file)}
    unknown = f"postgresql://ann:{PASSWORD}@nowhere.invalid/referral"
    line = error_line(run_command(tmp_path, "jobs", database_url=unknown, **key))
    assert line.startswith("Error: PostgreSQL at nowhere.invalid:5432 cannot be used: ")
    missing = replace_database(postgres_url, "missing")
    line = error_line(run_command(tmp_path, "migrate", database_url=missing, **key))
    assert line.endswith('cannot be used: database "missing" does not exist')


async def test_missing_schema_names_the_command_to_run(
    postgres_url: str, key_file: Path, tmp_path: Path
) -> None:
    """Before the first migration, a command says to run `referral migrate`."""
    await execute(postgres_url, "CREATE DATABASE empty")
    settings = {
        "database_url": replace_database(postgres_url, "empty"),
        "signing_key_file": str(key_file),
    }
    for command in (("jobs",), ("create-client", "shop", "--scope", "codes:read")):
        line = error_line(run_command(tmp_path, *command, **settings))
        assert line.endswith("is missing or outdated. Run 'referral migrate'.")
    await execute(postgres_url, "DROP DATABASE empty")


async def test_schema_of_a_later_release_is_reported(
    postgres_url: str, template_database: str, key_file: Path, tmp_path: Path
) -> None:
    """After a downgrade of the service, the error names the unknown revision."""
    await execute(postgres_url, f"CREATE DATABASE later TEMPLATE {template_database}")
    url = replace_database(postgres_url, "later")
    await execute(url, "UPDATE alembic_version SET version_num = '9999'")
    result = run_command(tmp_path, "migrate", database_url=url, signing_key_file=str(key_file))
    assert "'9999'" in error_line(result)
    await execute(postgres_url, "DROP DATABASE later")


def test_check_names_the_cause_for_each_dependency(key_file: Path, tmp_path: Path) -> None:
    """Each line has the address of the server; one failure does not hide the others."""
    database, redis = free_port(), free_port()
    result = run_command(
        tmp_path,
        "check",
        database_url=f"postgresql://ann:{PASSWORD}@127.0.0.1:{database}/referral",
        redis_url=f"redis://:{PASSWORD}@127.0.0.1:{redis}/0",
        signing_key_file=str(key_file),
    )
    assert result.returncode == 1
    assert PASSWORD not in result.stdout + result.stderr
    lines = result.stdout.rpartition("server ")[2].splitlines()
    for part, port in (("database", database), ("redis", redis)):
        [line] = [line for line in lines if line.startswith(part)]
        assert f"does not answer: 127.0.0.1:{port}, " in line
        assert "Connection refused" in line


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if command != ("migrate",)] + [("check",), ("worker",)],
    ids=str,
)
def test_only_run_and_migrate_create_a_database(command: tuple[str, ...], tmp_path: Path) -> None:
    """In an empty folder every other command fails and creates nothing."""
    folder = tmp_path / "data"
    line = error_line(run_command(folder, *command))
    assert line == f"Error: There is no database in {folder}. Create it with 'referral migrate'."
    assert not folder.exists()


@pytest.mark.parametrize("command", ["run", "migrate"])
def test_data_folder_that_is_a_file_is_named(tmp_path: Path, command: str) -> None:
    """The error has the path and the cause."""
    file = tmp_path / "data"
    file.write_text("")
    line = error_line(run_command(file, command))
    assert str(file) in line
    assert "cannot be used: " in line


@pytest.mark.parametrize("command", [("jobs",), ("jobs", "list"), ("worker",)], ids=" ".join)
def test_job_commands_reject_a_transaction_pooler(
    command: tuple[str, ...], key_file: Path, tmp_path: Path
) -> None:
    """The queue needs LISTEN and prepared statements, which a transaction pooler breaks."""
    url = "postgresql://ann@127.0.0.1:1/name?pooler=transaction"
    settings = {"database_url": url, "signing_key_file": str(key_file), "worker": "off"}
    assert "direct URL" in error_line(run_command(tmp_path, *command, **settings))


def test_invalid_database_url_is_rejected(key_file: Path, tmp_path: Path) -> None:
    """The exit code is 2, with one line, and nothing is created."""
    url = f"postgresql://ann:{PASSWORD}@one:5432,two:port/referral"
    for command in ("run", "migrate", "check"):
        result = run_command(
            tmp_path / "data", command, database_url=url, signing_key_file=str(key_file)
        )
        assert result.returncode == 2
        [line] = result.stderr.splitlines()
        assert line == "REFERRAL_DATABASE_URL: must have a port number from 0 to 65535"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgresql://ann:x@db.example/name", "db.example:5432"),
        ("postgresql://db.example:6432/name", "db.example:6432"),
        ("postgresql://[::1]/name", "[::1]:5432"),
        ("postgresql://ann:x@one,[::1]:2/name", "one,[::1]:2"),
        ("postgresql://ann@/name?host=/var/run/postgresql", "/var/run/postgresql"),
        ("rediss://:x@cache.example", "cache.example:6379"),
    ],
)
def test_server_is_named_by_host_and_port(url: str, server: str) -> None:
    """User, password and database are left out."""
    assert host_and_port(url) == server


def test_unreadable_file_is_not_reported_as_a_database_error(tmp_path: Path) -> None:
    """The error names the file and not the server."""
    missing = tmp_path / "missing"
    with (
        pytest.raises(Unavailable, match=f"^{missing} cannot be used: No such file"),
        explain_database_errors("postgresql://host/name"),
    ):
        missing.read_bytes()


def test_cause_is_the_root_of_the_exception_chain() -> None:
    """The root cause is shortened to one line; an exception without text is named by its class."""
    error = ValueError("above")
    error.__cause__ = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert describe_cause(error) == os.strerror(111)
    assert describe_cause(TimeoutError()) == "timed out"
    assert describe_cause(ValueError("one\ntwo")) == "one"
    assert describe_cause(KeyError()) == "KeyError"
