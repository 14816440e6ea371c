"""The migrations: up, down and up again over data, without drift, and by two at once."""

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
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield replace_database(postgres_url, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def test_the_schema_goes_up_down_and_up_over_data(empty_url: str) -> None:
    """Every revision can be taken back and made again with rows in the tables."""
    config = make_alembic_config(empty_url)
    await asyncio.to_thread(migrate, empty_url)
    connection = await asyncpg.connect(empty_url)
    await connection.execute(
        "INSERT INTO users VALUES (gen_random_uuid(), 'a@b.example', 'a@b.example', 'x', "
        "'member', 'en', false, true, now())"
    )
    await asyncio.to_thread(command.downgrade, config, "base")
    left = (
        "SELECT count(*) FROM pg_tables "
        "WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    )
    assert await connection.fetchval(left) == 0
    await asyncio.to_thread(migrate, empty_url)
    assert await connection.fetchval("SELECT count(*) FROM users") == 0
    await connection.close()


async def test_rows_of_the_release_before_are_good_after_a_migration(empty_url: str) -> None:
    """A login and a link outlive it, back and forth, and the release before may go on storing."""
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
    for going in (command.downgrade, command.upgrade):
        for table in ("refresh_tokens", "one_time_tokens"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 2  # noqa: S608
        await asyncio.to_thread(going, config, "0004" if going is command.downgrade else "head")
    free = "SELECT count(*) FROM one_time_tokens WHERE claimed_until IS NULL"
    unrelated = "SELECT count(*) FROM refresh_tokens WHERE num_nulls(parent, heir) = 2"
    assert [await connection.fetchval(query) for query in (free, unrelated)] == [2, 2]
    await connection.close()


async def test_the_tables_are_what_the_migrations_make(empty_url: str) -> None:
    """`alembic check` finds no difference."""
    await asyncio.to_thread(migrate, empty_url)
    await asyncio.to_thread(command.check, make_alembic_config(empty_url))


async def test_two_migrators_at_once_do_the_work_once(empty_url: str, key_file: Path) -> None:
    """The second waits for the first and finds it done."""
    named = {"REFERRAL_DATABASE_URL": empty_url, "REFERRAL_SIGNING_KEY_FILE": str(key_file)}
    command_line = (sys.executable, "-m", "referral", "migrate")
    environment = os.environ | named
    migrators = [
        await asyncio.create_subprocess_exec(*command_line, env=environment) for _ in range(2)
    ]
    assert [await migrator.wait() for migrator in migrators] == [0, 0]
    connection = await asyncpg.connect(empty_url)
    assert await connection.fetchval("SELECT count(*) FROM alembic_version") == 1
    await connection.close()
