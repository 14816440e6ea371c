"""Migrations: upgrade and downgrade with data, schema drift, and concurrent runs."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from alembic import command

from referral.adapters.postgres.migrations import make_alembic_config, migrate
from tests.conftest import replace_database


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield replace_database(postgres_url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_schema_upgrades_and_downgrades_with_data(empty_url: str) -> None:
    """Every revision can be undone and applied again while tables have rows."""
    config = make_alembic_config(empty_url)
    await asyncio.to_thread(migrate, empty_url)
    connection = await asyncpg.connect(empty_url)
    await connection.execute(
        "INSERT INTO users VALUES (gen_random_uuid(), 'a@b.example', 'a@b.example', 'x', "
        "'member', 'en', false, true, now())"
    )
    await asyncio.to_thread(command.downgrade, config, "base")
    remaining = (
        "SELECT count(*) FROM pg_tables "
        "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    assert await connection.fetchval(remaining) == 0
    await asyncio.to_thread(migrate, empty_url)
    assert await connection.fetchval("SELECT count(*) FROM users") == 0
    await connection.close()


async def test_rows_of_the_previous_release_survive(empty_url: str) -> None:
    """Sessions and links survive an upgrade and a downgrade; the previous release can write."""
    config = make_alembic_config(empty_url)
    await asyncio.to_thread(command.upgrade, config, "0004")
    connection = await asyncpg.connect(empty_url)
    await connection.execute(
        "INSERT INTO users VALUES (gen_random_uuid(), 'a@b.example', 'a@b.example', 'x', "
        "'member', 'en', false, true, now())"
    )
    await connection.execute(
        "INSERT INTO sessions (id, user_id, client_id, scope, created_at, expires_at) "
        "SELECT gen_random_uuid(), id, 'first-party', 'account', now(), now() FROM users"
    )

    async def store(digest: bytes) -> None:
        await connection.execute(
            "INSERT INTO refresh_tokens (digest, session_id, used_at) "
            "SELECT $1, id, now() FROM sessions",
            digest,
        )
        await connection.execute(
            "INSERT INTO one_time_tokens (digest, user_id, purpose, expires_at) "
            "SELECT $1, id, 'reset', now() FROM users",
            digest,
        )

    await store(b"1" * 32)
    await asyncio.to_thread(command.upgrade, config, "0005")
    await store(b"2" * 32)
    for revise in (command.downgrade, command.upgrade):
        for table in ("refresh_tokens", "one_time_tokens"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 2  # noqa: S608
        await asyncio.to_thread(revise, config, "0004" if revise is command.downgrade else "head")
    unlocked = "SELECT count(*) FROM one_time_tokens WHERE claimed_until IS NULL"
    unrelated = "SELECT count(*) FROM refresh_tokens WHERE num_nulls(parent, heir) = 2"
    assert [await connection.fetchval(query) for query in (unlocked, unrelated)] == [2, 2]
    await connection.close()


async def test_repeated_names_of_clients_become_unique(empty_url: str) -> None:
    """The oldest client keeps the name, the others get their ids; a long name is shortened."""
    config = make_alembic_config(empty_url)
    await asyncio.to_thread(command.upgrade, config, "0006")
    connection = await asyncpg.connect(empty_url)
    names = ["shop", "shop", "", "", "x" * 5000, "x" * 5000, "till"]
    add = (
        "INSERT INTO clients (id, name, secret_digest, scopes, created_at) "
        "VALUES (gen_random_uuid(), $1, '', '{}', now()) RETURNING id"
    )
    ids = [await connection.fetchval(add, name) for name in names]
    await asyncio.to_thread(command.upgrade, config, "0007")
    renamed = dict(await connection.fetch("SELECT id, name FROM clients"))
    short = "x" * 100
    assert [renamed[client_id] for client_id in ids] == [
        *("shop", f"shop ({ids[1]})", "", f" ({ids[3]})"),
        *(f"{short} ({ids[4]})", f"{short} ({ids[5]})", "till"),
    ]
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(add, "till")
    await asyncio.to_thread(command.downgrade, config, "0006")
    await connection.execute(add, "till")
    await connection.close()


async def test_tables_match_the_migrations(empty_url: str) -> None:
    """`alembic check` finds no difference."""
    await asyncio.to_thread(migrate, empty_url)
    await asyncio.to_thread(command.check, make_alembic_config(empty_url))


async def test_concurrent_migrations_run_once(empty_url: str, key_file: Path) -> None:
    """The second run waits for the first and finds nothing to do."""
    variables = {"REFERRAL_DATABASE_URL": empty_url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    command_line = (sys.executable, "-m", "referral", "migrate")
    environment = os.environ | variables
    migrators = [
        await asyncio.create_subprocess_exec(*command_line, env=environment) for _ in range(2)
    ]
    assert [await migrator.wait() for migrator in migrators] == [0, 0]
    connection = await asyncpg.connect(empty_url)
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    await connection.close()
