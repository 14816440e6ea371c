"""Lists for admins at two sizes: `python -m tests.performance.admin_lists` prints JSON.

Each list is read with each filter and each pair of filters, in a process with one connection, with
10,000 rows a table and with ten million (`SCALE`). Frequent values that never meet are among them:
a page of such a pair is empty, and may not read all rows of one filter.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.migrations import migrate
from referral.core.entities.account_view import UserFilter
from referral.core.entities.audit import AuditFilter, audit_record_id
from referral.core.entities.codes import CodeStatus
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter
from referral.core.entities.users import Role
from tests.conftest import replace_database
from tests.support.fakes.security import FakeFingerprinter

SMALL, LARGE = 10_000, int(os.environ.get("SCALE", "10000000"))
RUNS = 25
SLOW_MS = 50
TARGET = 1.2
LIMIT = 21
TIMEOUT = 3600.0
START = datetime(2025, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=365)
NOW = START + SPAN

SETUP_SQL = """
CREATE FUNCTION id_of(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid $$;
CREATE FUNCTION time_of(number bigint, rows bigint) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS
    $$ SELECT '2025-01-01Z'::timestamptz + number * (interval '365 days' / rows) $$;
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '512MB'
"""
# Few admins and blocked users, none of them confirmed; half of the others are.
USERS_SQL = """
INSERT INTO users (id, email, email_key, password_hash, role, locale, email_verified,
    notify_on_referral, created_at, blocked_at)
SELECT id_of(n), 'U' || n || '@example.com', 'u' || n || '@example.com', 'x',
    CASE WHEN n % 2000 = 0 THEN 'admin' ELSE 'member' END, 'en',
    n % 2 = 1 AND n % 500 <> 1, true, time_of(n, {rows}),
    CASE WHEN n % 500 = 1 THEN time_of(n, {rows}) END
FROM generate_series(1, {rows}) n
"""
# Old codes have expired, enabled or not; of the newest tenth some are active, inactive, exhausted.
CODES_SQL = """
INSERT INTO codes (id, user_id, text, text_key, created_at, expires_at, max_uses, uses, enabled,
    expiry_reported_until)
SELECT id_of(n), id_of(n), 'CODE' || n, 'CODE' || n, time_of(n, {rows}),
    time_of(n, {rows}) + interval '36 days 12 hours',
    CASE WHEN n % 4 = 0 THEN 1 END, CASE WHEN n % 4 = 0 THEN 1 ELSE 0 END, n % 4 < 3,
    CASE WHEN n < {rows} * 0.9 AND n % 4 < 3
        THEN time_of(n, {rows}) + interval '36 days 12 hours' ELSE '-infinity' END
FROM generate_series(1, {rows}) n
"""
# The referrers 1 and 2 have 40 and 20 % of the referrals, which are all confirmed and rejected;
# 10 % are held, and all of the pending ones.
REFERRALS_SQL = """
INSERT INTO referrals (id, referrer_id, referred_id, code_id, code, status, joined_at, held)
SELECT id_of(n), id_of(owner), id_of(n), id_of(owner), 'CODE' || owner, status, joined_at, held
FROM (
    SELECT n, CASE WHEN n % 10 < 4 THEN 1 WHEN n % 10 < 6 THEN 2 ELSE 3 + n % 5000 END AS owner,
        CASE WHEN n % 10 IN (4, 5) THEN 'rejected' WHEN n % 10 = 6 THEN 'pending'
            ELSE 'confirmed' END AS status,
        time_of(n, {rows}) AS joined_at, n % 10 = 6 AS held
    FROM generate_series(1, {rows}) n
) AS made WHERE n <> owner
"""
# `A`, `B` and `C` are frequent and never in one record; `actor 1` and the like meet.
AUDIT_SQL = """
INSERT INTO audit_log (id, at, actor_type, actor, action, subject)
SELECT audit_log_id(at), at, 'user',
    CASE WHEN n % 2 = 0 THEN 'actor ' || n % 7 WHEN n % 3 = 0 THEN 'A' ELSE 'a' END,
    CASE WHEN n % 2 = 0 THEN 'action ' || n % 11 WHEN n % 3 = 1 THEN 'B' ELSE 'b' END,
    CASE WHEN n % 2 = 0 THEN 'subject ' || n % 13 WHEN n % 3 = 2 THEN 'C' ELSE 'c' END
FROM (SELECT n, time_of(n, {rows}) AS at FROM generate_series(1, {rows}) n) AS record
"""
INDEXES_SQL = """
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = $1::regclass AND NOT indisunique AND relkind = 'i'
"""

T = TypeVar("T")
Read = Callable[[PostgresDatabase], Awaitable[list[Any]]]


async def fill(url: str, rows: int) -> None:
    """Fill the tables; the indexes are made afterwards, which is faster."""
    connection = await asyncpg.connect(url, command_timeout=TIMEOUT)
    for statement in SETUP_SQL.strip().split(";\n"):
        await connection.execute(statement)
    for month in range(12):
        at = START.replace(month=month + 1)
        await connection.execute("SELECT prepare_audit_log($1)", at)
    tables = {"users": USERS_SQL, "codes": CODES_SQL, "referrals": REFERRALS_SQL}
    for name, sql in tables.items():
        indexes = await connection.fetch(INDEXES_SQL, name)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        await connection.execute(sql.format(rows=rows))
        for index in indexes:
            await connection.execute(index["definition"])
    await connection.execute(AUDIT_SQL.format(rows=rows))
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()


def combinations(kind: Callable[..., T], values: dict[str, list[Any]]) -> Iterator[T]:
    """Yield the filter without values, with each value, and with each pair of two names."""
    yield kind()
    for name, each in values.items():
        for value in each:
            yield kind(**{name: value})
    for first, second in itertools.combinations(values, 2):
        for pair in itertools.product(values[first], values[second]):
            yield kind(**dict(zip((first, second), pair, strict=True)))


def id_of(number: int) -> UUID:
    """Return the id of a row."""
    return UUID(int=UUID("01900000-0000-7000-8000-000000000000").int + number)


EARLY, LATE = START + SPAN * 0.2, START + SPAN * 0.7
REFERRAL_FILTERS: dict[str, list[Any]] = {
    "status": list(ReferralStatus),
    "referrer_id": [id_of(1), id_of(2), id_of(77)],
    "code": ["CODE1", "CODE2", "CODE77"],
    "since": [EARLY, LATE],
    "until": [EARLY, LATE],
    "held": [True, False],
}
CODE_FILTERS: dict[str, list[Any]] = {
    "code": ["CODE7"],
    "user_id": [id_of(7)],
    "status": list(CodeStatus),
}
USER_FILTERS: dict[str, list[Any]] = {
    "email_key": ["u77@example.com"],
    "role": list(Role),
    "blocked": [True, False],
    "verified": [True, False],
}
AUDIT_FILTERS: dict[str, list[Any]] = {
    "actor": ["A", "actor 3"],
    "subject": ["C", "subject 5"],
    "action": ["B", "action 7"],
    "since": [EARLY, LATE],
    "until": [EARLY, LATE],
}


def lists(rows: int) -> Iterator[tuple[str, Read]]:
    """Yield each list with each filter: its name, and how to read its first and middle page."""
    middle, middle_record = id_of(rows // 2), audit_record_id(START + SPAN / 2)
    for after in (None, middle):
        for wanted in combinations(ReferralFilter, REFERRAL_FILTERS):
            yield name_of("referrals", wanted, after), referrals(wanted, after)
        for code_filter in combinations(CodeFilter, CODE_FILTERS):
            yield name_of("codes", code_filter, after), codes(code_filter, after)
        for user_filter in combinations(UserFilter, USER_FILTERS):
            yield name_of("users", user_filter, after), users(user_filter, after)
    for after in (None, middle_record):
        for audit_filter in combinations(AuditFilter, AUDIT_FILTERS):
            yield name_of("audit", audit_filter, after), audit(audit_filter, after)


def name_of(table: str, wanted: Any, after: UUID | None) -> str:
    """Return the name of a list with its filters."""
    values = {field.name: getattr(wanted, field.name) for field in fields(wanted)}
    texts = [f"{name}={value}" for name, value in values.items() if value is not None]
    return " ".join([table, *texts, *(["middle"] if after else [])])


def referrals(wanted: ReferralFilter, after: UUID | None) -> Read:
    """Return how to read referrals."""

    async def read(database: PostgresDatabase) -> list[Any]:
        async with database.read() as repositories:
            search = repositories.referral_search
            return list(await search.list_page(wanted, after=after, limit=LIMIT))

    return read


def codes(wanted: CodeFilter, after: UUID | None) -> Read:
    """Return how to read codes."""

    async def read(database: PostgresDatabase) -> list[Any]:
        async with database.read() as repositories:
            search = repositories.code_search
            return list(await search.list_page(wanted, NOW, after=after, limit=LIMIT))

    return read


def users(wanted: UserFilter, after: UUID | None) -> Read:
    """Return how to read users."""

    async def read(database: PostgresDatabase) -> list[Any]:
        async with database.read() as repositories:
            directory = repositories.user_directory
            return list(await directory.list_page(wanted, after=after, limit=LIMIT))

    return read


def audit(wanted: AuditFilter, after: UUID | None) -> Read:
    """Return how to read the audit log."""

    async def read(database: PostgresDatabase) -> list[Any]:
        async with database.read() as repositories:
            return list(await repositories.audit.list_page(wanted, after=after, limit=LIMIT))

    return read


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    """Open a database without the time-out of requests."""
    engine = make_engine(url, command_timeout=TIMEOUT)
    yield PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    await engine.dispose()


async def median_time(database: PostgresDatabase, read: Read) -> tuple[float, int]:
    """Return the milliseconds of a page, the median of some rounds, and how many rows it has."""
    rows, times = len(await read(database)), []
    for _ in range(RUNS):
        started = time.perf_counter()
        await read(database)
        times.append((time.perf_counter() - started) * 1000)
        if times[-1] > SLOW_MS:
            break
    return statistics.median(times), rows


async def explain(database: PostgresDatabase, read: Read) -> list[str]:
    """Return the plan of a list, with buffers."""
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
    await read(database)
    await asyncio.sleep(0)
    async with database.read() as repositories:
        sql, arguments = sent[-1]
        connection = repositories.connection
        rows = await connection.fetch_sql(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", *arguments)
    return [row[0] for row in rows]


async def measure(small: str, large: str) -> list[dict[str, Any]]:
    """Return each list with its milliseconds at both sizes, the largest ratio first.

    Those that miss the target have their plan.
    """
    found = []
    async with opened(small) as one, opened(large) as other:
        for (name, read), (_, read_large) in zip(lists(SMALL), lists(LARGE), strict=True):
            before, _ = await median_time(one, read)
            after, rows = await median_time(other, read_large)
            entry = {"list": name, "small_ms": before, "large_ms": after, "rows": rows}
            if after > TARGET * before:
                entry["plan"] = await explain(other, read_large)
            found.append(entry)
    return sorted(found, key=lambda entry: entry["small_ms"] / entry["large_ms"])


def main() -> None:
    """Fill two databases, and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres", "-c shared_buffers=4GB")
        server.start()
        try:
            urls = [replace_database(server.url, f"rows{rows}") for rows in (SMALL, LARGE)]
            for url, rows in zip(urls, (SMALL, LARGE), strict=True):
                asyncio.run(make_database(server.url, url, rows))
            sys.stdout.write(json.dumps(asyncio.run(measure(*urls)), indent=1) + "\n")
        finally:
            server.stop()


async def make_database(server: str, url: str, rows: int) -> None:
    """Create and fill a database."""
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE rows{rows}")
    await connection.close()
    await asyncio.to_thread(migrate, url)
    await fill(url, rows)


if __name__ == "__main__":
    main()
