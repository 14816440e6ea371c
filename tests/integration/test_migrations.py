"""Migrations: upgrade and downgrade with data, schema drift, and concurrent runs."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from alembic import command

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.migrations import make_alembic_config, migrate
from referral.core.entities.statistics import Interval, Statistics, StatisticsRange
from tests.conftest import replace_database
from tests.support.fakes.security import FakeFingerprinter


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


USER_SQL = """
INSERT INTO users (id, email, email_key, password_hash, role, locale, email_verified,
    notify_on_referral, created_at)
VALUES (gen_random_uuid(), $1, $1, 'x', 'member', 'en', false, true, $2) RETURNING id
"""
REFERRAL_SQL = """
INSERT INTO referrals (id, referrer_id, referred_id, status, joined_at, decided_at)
SELECT gen_random_uuid(), min(id::text)::uuid, max(id::text)::uuid, $2, $3, $4
FROM users WHERE email = ANY ($1::text[]) RETURNING id
"""
FIGURES_SQL = """
SELECT array_agg((day, registered, referred, confirmed, rejected)::text ORDER BY day)
FROM daily_statistics
"""


async def test_existing_rows_and_the_previous_release_are_counted(empty_url: str) -> None:
    """By the migration, and by triggers: the previous release sets no times of decisions."""
    config = make_alembic_config(empty_url)
    await asyncio.to_thread(command.upgrade, config, "0021")
    connection = await asyncpg.connect(empty_url)
    days = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in range(1, 6)]
    for number in range(8):
        await connection.execute(USER_SQL, f"u{number}@b.example", days[0])

    async def refer(number: int, status: str, *times: datetime | None) -> UUID:
        pair = [f"u{number}@b.example", f"u{number + 1}@b.example"]
        added: UUID = await connection.fetchval(REFERRAL_SQL, pair, status, *times)
        return added

    pending = await refer(0, "pending", days[1], None)
    confirmed = await refer(2, "confirmed", days[1], None)
    await refer(4, "rejected", days[1], days[2])
    await asyncio.to_thread(command.upgrade, config, "head")
    counted = [f"({days[0]:%F},8,0,0,0)", f"({days[1]:%F},0,3,1,0)", f"({days[2]:%F},0,0,0,1)"]
    assert await connection.fetchval(FIGURES_SQL) == counted
    await connection.execute("UPDATE referrals SET status = 'confirmed' WHERE id = $1", pending)
    decide = "UPDATE referrals SET status = 'rejected', decided_at = $2 WHERE id = $1"
    await connection.execute(decide, confirmed, days[3])
    await refer(6, "confirmed", days[4], None)
    times = "SELECT id, confirmed_at, rejected_at FROM referrals WHERE id = ANY ($1)"
    found = {row["id"]: row for row in await connection.fetch(times, [pending, confirmed])}
    today = found[pending]["confirmed_at"]
    assert tuple(found[confirmed])[1:] == (days[1], days[3])
    engine = make_engine(empty_url)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    wanted = StatisticsRange.of(days[0], today + timedelta(days=1), Interval.DAY)
    async with database.read() as repositories:
        figures = await repositories.statistics.count_all(wanted)
    await engine.dispose()
    assert figures[days[1].date()] == Statistics(referred=3, confirmed=1)
    assert figures[days[4].date()] == Statistics(referred=1, confirmed=1)
    assert figures[days[3].date()] == Statistics(rejected=1)
    assert figures[today.date()] == Statistics(confirmed=1)
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
