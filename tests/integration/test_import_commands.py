"""`referral import` and `referral export`: kills, dry runs, and moves between installations."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ARGON2
from referral.settings import Settings
from tests.conftest import execute, replace_database
from tests.contracts.test_foreign_hashes import HASHES
from tests.support.api_client import API, PASSWORD, block_account, log_in, new_email, register
from tests.support.service_process import environment, run_command
from tests.support.statistics_check import check_statistics

CREATED_AT = "2025-03-01T10:00:00.123456Z"
SEED = 20260101
KILLS = 10


def user_line(number: int, **fields: Any) -> dict[str, Any]:
    """Return the line of a user."""
    line = {"type": "user", "email": f"U{number}@example.com", "created_at": CREATED_AT}
    return line | fields


def code_line(number: int, **fields: Any) -> dict[str, Any]:
    """Return the line of an active code."""
    line = {"type": "code", "user": f"u{number}@Example.com", "code": f"Code-{number}"}
    times = {"expires_at": "2099-01-01T00:00:00+03:00", "created_at": CREATED_AT}
    return line | times | {"active": True} | fields


def referral_line(number: int, referrer: int, **fields: Any) -> dict[str, Any]:
    """Return the line of a referral."""
    users = {"user": f"U{number}@example.com", "referrer": f"U{referrer}@example.com"}
    return {"type": "referral", "joined_at": CREATED_AT} | users | fields


def write_lines(path: Path, *lines: dict[str, Any] | str) -> Path:
    """Write a file of lines."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class Installation:
    """A database and a key, with the commands for it."""

    def __init__(self, database_url: str, key_file: Path, folder: Path) -> None:
        self.database_url = database_url
        self._folder = folder
        self._settings = {"database_url": database_url, "signing_key_file": str(key_file)}

    def run(self, *arguments: str, status: int | None = 0, **settings: str) -> str:
        """Run a command, and return its output."""
        values = self._settings | settings
        result = run_command(self._folder / "var", *arguments, **values)
        assert status in {None, result.returncode}, result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout

    def import_file(self, path: Path, *options: str, status: int = 0) -> dict[str, Any]:
        """Import a file, and return the summary."""
        summary: dict[str, Any] = json.loads(
            self.run("import", str(path), "--json", *options, status=status)
        )
        return summary

    def import_and_die(self, step: int, path: Path) -> int:
        """Import with two lines in a batch until the process kills itself; return its status."""
        command = [sys.executable, "-m", "tests.support.killed_import", str(step), "2"]
        variables = environment(self._folder / "var", **self._settings)
        return subprocess.run(  # noqa: S603 - our own command
            [*command, "import", str(path)], env=variables, capture_output=True, check=False
        ).returncode

    def export(self) -> list[str]:
        """Return the lines of an export."""
        path = self._folder / f"{uuid4()}.jsonl"
        self.run("export", str(path))
        assert path.stat().st_mode & 0o777 == 0o600
        return path.read_text().splitlines()


@asynccontextmanager
async def make_installation(
    postgres_url: str, template: str, key_file: Path, folder: Path
) -> AsyncIterator[Installation]:
    """Create an installation with an empty database for the block."""
    name = f"import_{uuid4().hex}"
    await execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield Installation(replace_database(postgres_url, name), key_file, folder)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def installation(
    postgres_url: str, template_database: str, key_file: Path, tmp_path: Path
) -> AsyncIterator[Installation]:
    """An installation with an empty database."""
    async with make_installation(postgres_url, template_database, key_file, tmp_path) as made:
        yield made


@pytest.fixture
async def other_installation(
    postgres_url: str, template_database: str, key_file: Path, tmp_path: Path
) -> AsyncIterator[Installation]:
    """Another one, with the same key."""
    async with make_installation(postgres_url, template_database, key_file, tmp_path) as made:
        yield made


MIXED_LINES: list[dict[str, Any] | str] = [
    referral_line(2, 1, code="code-1"),
    code_line(1, uses=1),
    user_line(1, email_verified=True, locale="ru", role="admin"),
    "no JSON",
    user_line(2, external_id="two|2"),
    user_line(2, email="u2@EXAMPLE.com"),
    "",
    code_line(2, code="CODE-1"),
    code_line(3, code="OLD-3", expires_at="2020-01-01T00:00:00Z"),
    code_line(2, code="SPENT-2", max_uses=3, uses=3, active=False),
    user_line(3, blocked=True, notify_on_referral=False),
    referral_line(3, 1, status="pending", held=True, reason="a copy"),
    referral_line(2, 3),
    referral_line(1, 1),
    referral_line(9, 1),
    code_line(9),
    code_line(3, code="GONE-3", active=False, deleted=True),
    user_line(4, email="Jos\u00e9@b\u00fccher.example", password_hash=HASHES["bcrypt 2b"]),
]
REJECTED = {
    4: "invalid",
    6: "email-taken",
    8: "code-taken",
    13: "already-referred",
    14: "self-referral",
    15: "unknown-user",
    16: "unknown-user",
}
COUNTS = {
    "users": {"added": 4, "unchanged": 0, "rejected": 2},
    "codes": {"added": 4, "unchanged": 0, "rejected": 2},
    "referrals": {"added": 2, "unchanged": 0, "rejected": 3},
}


def check_rejected(path: Path) -> None:
    """Check the file of the rejected lines of `MIXED_LINES`."""
    rejected = path.with_name(f"{path.name}.rejected.jsonl")
    lines = read_lines(rejected)
    assert {line["line"]: line["reason"].partition(":")[0] for line in lines} == REJECTED
    assert [line["line"] for line in lines] == sorted(REJECTED)
    texts = path.read_text().splitlines()
    assert all(line["text"] == texts[line["line"] - 1] for line in lines)
    assert rejected.stat().st_mode & 0o777 == 0o600


def test_import_tells_what_it_took_and_what_not(installation: Installation, tmp_path: Path) -> None:
    """Line by line; again with the same file nothing is there twice, and a dry run tells it all."""
    path = write_lines(tmp_path / "all.jsonl", *MIXED_LINES)
    rejected_file = {"rejected_file": f"{path}.rejected.jsonl"}
    planned = installation.import_file(path, "--dry-run", status=1)
    assert planned == COUNTS | rejected_file | {"dry_run": True}
    check_rejected(path)
    assert installation.export() == []
    taken = installation.import_file(path, status=1)
    assert taken == COUNTS | rejected_file | {"dry_run": False}
    check_rejected(path)
    exported = installation.export()
    assert len(exported) == 10
    again = installation.import_file(path, status=1)
    for kind, counts in COUNTS.items():
        assert again[kind] == counts | {"added": 0, "unchanged": counts["added"]}
    check_rejected(path)
    assert installation.export() == exported
    left = {each.name for each in tmp_path.iterdir() if each.name.startswith("all")}
    assert left == {"all.jsonl", "all.jsonl.rejected.jsonl"}


async def test_import_queues_no_job_and_records_no_event(
    installation: Installation, tmp_path: Path
) -> None:
    """Neither for users nor for codes that had expired.

    The operator is in the audit log, with the digests of the imported and the exported file.
    """
    path = write_lines(tmp_path / "all.jsonl", *MIXED_LINES)
    installation.run("import", str(path), status=1)
    exported = "".join(f"{line}\n" for line in installation.export())
    digests = [sha256(each).hexdigest() for each in (path.read_bytes(), exported.encode())]
    connection = await asyncpg.connect(installation.database_url)
    for table in ("pgqueuer", "event_outbox", "events", "imports"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608
    overdue = "SELECT count(*) FROM codes WHERE enabled AND expires_at < now()"
    assert await connection.fetchval(overdue) == 1
    unreported = f"{overdue} AND expires_at > expiry_reported_until"
    assert await connection.fetchval(unreported) == 0
    actions = await connection.fetch("SELECT actor, action, subject FROM audit_log ORDER BY id")
    assert [tuple(row) for row in actions] == [
        ("operator", "import.started", digests[0]),
        ("operator", "import.finished", digests[0]),
        ("operator", "export.started", "all"),
        ("operator", "export.finished", digests[1]),
    ]
    await connection.close()


def test_import_that_is_killed_ends_complete(
    installation: Installation, other_installation: Installation, tmp_path: Path
) -> None:
    """Killed ten times at random steps, also between a commit and its file of rejected lines."""
    path = write_lines(tmp_path / "all.jsonl", *MIXED_LINES)
    other_installation.run("import", str(path), status=1)
    expected = other_installation.export()
    steps = random.Random(SEED)  # noqa: S311 - no secret
    kills = 0
    while kills < KILLS:
        status = installation.import_and_die(steps.randrange(2, 80), path)
        assert status in {-9, 1}
        kills += status == -9
    installation.run("import", str(path), status=1)
    check_rejected(path)
    assert installation.export() == expected
    asyncio.run(check_statistics(installation.database_url))


async def test_export_and_import_move_an_installation(
    client: httpx.AsyncClient,
    database: PostgresDatabase,
    settings: Settings,
    key_file: Path,
    other_installation: Installation,
    tmp_path: Path,
) -> None:
    """Accounts, codes, deleted codes, blocks and erased users: exported again, all is equal."""
    source = Installation(settings.database_url or "", key_file, tmp_path)
    emails = [new_email() for _ in range(4)]
    code: dict[str, Any] = {}
    for email in emails:
        referral_code = {"referral_code": code["code"]} if code else {}
        assert (await register(client, email, **referral_code)).status_code == 201
        tokens = (await log_in(client, email)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        for number in range(2):
            body = {"lifetime_minutes": 60, "max_uses": 5, "replace": True}
            response = await client.post(f"{API}/me/codes", json=body, headers=headers)
            code = response.json()
            if number == 0:
                await client.delete(f"{API}/me/codes/{code['id']}", headers=headers)
    confirmed = {"password": PASSWORD}
    await client.request("DELETE", f"{API}/me", json=confirmed, headers=headers)
    await block_account(database, emails[0])
    exported = source.export()
    assert sum("deleted" in line for line in exported) == 5
    assert sum("blocked" in line for line in exported) == 1
    assert sum("erased" in line for line in exported) == 1
    path = tmp_path / "moved.jsonl"
    path.write_text("".join(f"{line}\n" for line in exported))
    other_installation.import_file(path)
    assert other_installation.export() == exported
    other_installation.import_file(path)
    assert other_installation.export() == exported
    summary = source.import_file(path)
    assert {counts["added"] for name, counts in summary.items() if name in COUNTS} == {0}


async def test_imported_users_log_in_beside_a_running_service(
    client: httpx.AsyncClient, settings: Settings, key_file: Path, tmp_path: Path
) -> None:
    """With the password they had, of any kind of hash; then with ours."""
    installation = Installation(settings.database_url or "", key_file, tmp_path)
    hashes = {new_email(): text for text in HASHES.values()}
    lines = [user_line(0, email=email, password_hash=text) for email, text in hashes.items()]
    path = write_lines(tmp_path / "users.jsonl", *lines)
    installation.import_file(path)
    connection = await asyncpg.connect(settings.database_url)
    for email in hashes:
        assert (await log_in(client, email, "wrong password")).status_code == 400
        for _ in range(2):
            assert (await log_in(client, email, PASSWORD)).status_code == 200
            stored = await connection.fetchrow(
                "SELECT password_hash, password_cost FROM users WHERE email = $1", email
            )
            assert ARGON2.verify(stored[0], PASSWORD)
            assert stored[1] is None
    await connection.close()


async def test_imported_code_is_found(
    client: httpx.AsyncClient, settings: Settings, key_file: Path, tmp_path: Path
) -> None:
    """By the address of its owner, and by a registration, which counts."""
    installation = Installation(settings.database_url or "", key_file, tmp_path)
    email, text = new_email(), uuid4().hex
    code = code_line(0, user=email, code=text, max_uses=2, uses=1)
    path = write_lines(tmp_path / "users.jsonl", code, user_line(0, email=email))
    installation.import_file(path)
    found = await client.get(f"{API}/codes/lookup", params={"email": email})
    assert found.json()["code"] == text
    assert (await register(client, referral_code=text)).status_code == 201
    assert (await register(client, referral_code=text)).status_code == 422


@pytest.mark.parametrize("arguments", [("import", "missing.jsonl"), ("import", ".")])
def test_file_that_cannot_be_read_is_named(
    installation: Installation, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """In a line of standard error, before anything is done."""
    assert installation.run(arguments[0], str(tmp_path / arguments[1]), status=None) == ""


def test_export_into_a_missing_folder_fails(installation: Installation, tmp_path: Path) -> None:
    """And leaves nothing behind."""
    assert installation.run("export", str(tmp_path / "no" / "file"), status=1) == ""
    assert list(tmp_path.iterdir()) == []
