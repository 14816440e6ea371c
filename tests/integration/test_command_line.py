"""The command line: help, version, JSON, errors, and the management of clients."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from uuid import UUID

import click
import httpx
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from referral.cli import main
from referral.cli.output import print_table
from referral.settings import Settings
from tests.conftest import execute, run_service
from tests.integration.conftest import Run, RunJson
from tests.support.api_client import API, PASSWORD, new_email


def all_commands(group: click.Group = main, *path: str) -> Iterator[tuple[str, ...]]:
    """Return the arguments of every command and group."""
    yield path
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from all_commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("arguments", list(all_commands()), ids=" ".join)
@pytest.mark.parametrize("width", [40, 80])
def test_help_is_complete_on_any_terminal(arguments: tuple[str, ...], width: int) -> None:
    """`-h` is `--help`, needs no database, and no sentence ends in an ellipsis."""
    helped = [
        CliRunner().invoke(main, [*arguments, option], terminal_width=width)
        for option in ("-h", "--help")
    ]
    assert [result.exit_code for result in helped] == [0, 0]
    assert helped[0].output == helped[1].output
    assert not re.findall(r"[a-z]\.\.\.$", helped[0].output, re.MULTILINE)


@pytest.mark.parametrize("arguments", list(all_commands()), ids=" ".join)
def test_every_command_and_option_has_a_help_text(arguments: tuple[str, ...]) -> None:
    """A whole sentence."""
    command: click.Command = main
    for name in arguments:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    options = [each for each in command.params if isinstance(each, click.Option)]
    for text in (command.help, *(option.help for option in options)):
        assert text
        assert text.rstrip().endswith(".")


def test_version_is_that_of_the_package() -> None:
    """In one line."""
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"referral {version('referral')}\n")


def test_shell_completion_knows_the_commands() -> None:
    """As documented in docs/command-line.md."""
    completion = BashComplete(main, {}, "referral", "_REFERRAL_COMPLETE")
    assert "complete" in completion.source()
    found = [item.value for item in completion.get_completions(["clients"], "r")]
    assert found == ["remove", "rotate-secret"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["jobs", "list", "--status", "lost"], "not one of 'waiting', 'running', 'held'"),
        (["jobs", "discard", "0"], "0 is not in the range"),
        (["jobs", "--json", "list"], "Put --json after 'list'."),
        (["clients", "delete"], "No such command 'delete'"),
        (["create-client", "shop", "--scope", "all"], "admin, codes:read, "),
    ],
    ids=str,
)
def test_usage_errors_name_the_choices(arguments: list[str], error: str) -> None:
    """They exit with 2, need no database, and print to standard error only."""
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr


def test_table_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row becomes a list of fields; a pipe or a wide terminal gets a table."""
    table = (("id", "error"), [(1, "a long message about it"), (2, "")])
    monkeypatch.setenv("COLUMNS", "20")
    print_table(*table)
    expected = ["id  error", "1   a long message about it", "2"]
    assert capsys.readouterr().out.splitlines() == expected
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(*table)
    narrow = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert narrow == [
        *(["id", "1"], ["error", "a", "long"], ["message"], ["about", "it"], []),
        *(["id", "2"], ["error"]),
    ]
    monkeypatch.setenv("COLUMNS", "30")
    print_table(*table)
    assert capsys.readouterr().out.splitlines() == expected


async def test_clients_are_listed_rotated_and_removed(
    settings: Settings, run: Run, run_json: RunJson
) -> None:
    """A rotated secret and a removed client are invalid at once, in a running service too."""
    await execute(settings.database_url or "", "TRUNCATE clients")
    made = run_json("create-client", "shop", "--scope", "codes:read")
    other = run_json("create-client", "till", "--scope", "users:read,codes:read")
    secret = made.pop("client_secret")
    assert (made["name"], made["scopes"]) == ("shop", ["codes:read"])
    assert run_json("clients", "list") == [made, {k: other[k] for k in made}]

    async with run_service(settings) as service:

        async def request_token(secret: str) -> httpx.Response:
            form = {"grant_type": "client_credentials"}
            credentials = (made["client_id"], secret)
            return await service.post(f"{API}/auth/token", data=form, auth=credentials)

        async def is_active(token: str) -> bool:
            credentials = (other["client_id"], other["client_secret"])
            form = {"token": token}
            response = await service.post(f"{API}/auth/introspect", data=form, auth=credentials)
            return bool(response.json()["active"])

        token = (await request_token(secret)).json()["access_token"]
        rotated = run_json("clients", "rotate-secret", "shop")
        assert (await request_token(secret)).status_code == 401
        assert (await request_token(rotated["client_secret"])).status_code == 200
        assert await is_active(token)
        removed = run("clients", "remove", made["client_id"])
        assert removed.stdout == f"Removed: shop ({made['client_id']})\n"
        assert (await request_token(rotated["client_secret"])).status_code == 401
        assert not await is_active(token)

    table = run("clients", "list").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["name", "till"]
    for arguments in (("remove", "shop"), ("rotate-secret", made["client_id"])):
        unknown = run("clients", *arguments)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == f"Error: No client has the id or the name '{arguments[1]}'.\n"


async def test_public_client_is_created(settings: Settings, run: Run, run_json: RunJson) -> None:
    """It has redirect URIs and no secret, and the list shows which clients are public."""
    await execute(settings.database_url or "", "TRUNCATE clients")
    uris = ("https://app.example.com/callback", "com.example.app:/callback")
    arguments = ("--redirect-uri", uris[0], "--redirect-uri", uris[1])
    printed = run("create-client", "phone", "--public", *arguments)
    name, _, client_id = printed.stdout.strip().partition("=")
    assert (printed.returncode, name, UUID(client_id).version) == (0, "client_id", 7)
    web = run_json("create-client", "web", "--redirect-uri", uris[0])
    assert (web["public"], web["scopes"], bool(web["client_secret"])) == (False, [], True)
    [phone, _] = run_json("clients", "list")
    assert (phone["public"], phone["redirect_uris"]) == (True, list(uris))
    lines = run("clients", "list").stdout.splitlines()
    assert lines[1].split()[2:6] == ["public", "-", *uris]
    assert lines[2].split()[2:5] == ["confidential", "-", uris[0]]
    rotated = run("clients", "rotate-secret", "phone")
    assert (rotated.returncode, "is public" in rotated.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["--public"], 2, "needs --redirect-uri"),
        (["--public", "--redirect-uri", "https://a.example", "--scope", "codes:read"], 2, "scopes"),
        ([], 2, "a --scope, or a --redirect-uri"),
        (["--public", "--redirect-uri", "javascript:x"], 1, "must begin with"),
        (["--scope", "codes:read", "--redirect-uri", "https://a.example/#x"], 1, "fragment"),
    ],
)
def test_redirect_uris_of_a_client_are_checked(
    run: Run, arguments: list[str], status: int, error: str
) -> None:
    """The error says what to do."""
    refused = run("create-client", "app", *arguments)
    assert (refused.returncode, refused.stdout) == (status, "")
    assert error in refused.stderr


def test_name_of_a_client_is_checked(run: Run) -> None:
    """An empty and a taken name are refused in one line."""
    name = new_email()
    for result, error in (
        (run("create-client", " ", "--scope", "codes:read"), "1 to 100 printable characters"),
        (run("create-client", name, "--scope", "codes:read"), ""),
        (run("create-client", name, "--scope", "codes:read"), f"the name '{name}' exists already"),
    ):
        assert result.returncode == bool(error)
        assert len(result.stderr.splitlines()) == bool(error)
        assert error in result.stderr


async def test_commands_print_json(settings: Settings, run: Run, run_json: RunJson) -> None:
    """One document on standard output and nothing else."""
    url = settings.database_url or ""
    await execute(url, "TRUNCATE pgqueuer, pgqueuer_log")
    await execute(
        url,
        "INSERT INTO pgqueuer (id, priority, status, entrypoint, heartbeat) "
        "VALUES (41, 0, 'queued', 'welcome-mail', now()), (42, 0, 'failed', 'welcome-mail', now())",
    )
    email = new_email()
    admin = run_json("create-admin", email, stdin=f"{PASSWORD}\n")
    assert (admin["email"], admin["role"]) == (email, "admin")
    check = run_json("check")
    assert check["in_use"]["database"] == "PostgreSQL"
    assert {"name": "database", "available": True, "state": "ok"} in check["servers"]
    [kind] = [row for row in run_json("jobs") if row["kind"] == "welcome-mail"]
    assert kind["held"] == 1
    [job] = run_json("jobs", "list")
    assert (job["id"], job["status"], job["error"]) == (42, "held", "")

    mixed = run("jobs", "retry", "42", "999", "--json")
    assert (mixed.returncode, json.loads(mixed.stdout)) == (1, {"requeued": [42]})
    assert mixed.stderr == "Error: No held job has the id 999.\n"
    unknown = run("jobs", "discard", "999")
    assert (unknown.returncode, unknown.stdout) == (1, "Discarded: 0\n")
    assert unknown.stderr == "Error: No held or waiting job has the id 999.\n"
    assert sorted(run_json("jobs", "discard", "41", "42")["discarded"]) == [41, 42]
