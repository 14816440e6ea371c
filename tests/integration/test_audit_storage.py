"""The audit log in PostgreSQL: closed to changes, and partitioned by month."""

import itertools
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from asyncpg.exceptions import InsufficientPrivilegeError

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.audit import AuditFilter, AuditRecord, audit_record_id
from tests.conftest import execute
from tests.contracts.test_database_audit import make_record

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
CHANGES = (
    "UPDATE {} SET reason = 'another'",
    "UPDATE {} SET id = gen_random_uuid()",
    "DELETE FROM {}",
    "TRUNCATE {}",
)
PARTITIONS = """
SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class JOIN pg_inherits ON inhrelid = oid
WHERE inhparent = 'audit_log'::regclass ORDER BY relname
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner of the tables."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def add(database: PostgresDatabase, record: AuditRecord) -> None:
    """Store a record."""
    async with database.begin() as repositories:
        await repositories.audit.add(record)


async def find(database: PostgresDatabase, record: AuditRecord) -> list[AuditRecord]:
    """Return the stored records about the record's subject."""
    async with database.read() as repositories:
        wanted = AuditFilter(subject=record.subject)
        return await repositories.audit.list_page(wanted, after=None, limit=10)


async def prepare(database: PostgresDatabase, now: datetime) -> None:
    """Prepare the partitions, as the hourly job does."""
    async with database.begin() as repositories:
        await repositories.audit.prepare_storage(now)


@pytest.mark.parametrize("change", CHANGES)
async def test_database_rejects_changes(
    database: PostgresDatabase, connection: asyncpg.Connection, change: str
) -> None:
    """Even by the owner, in the table and in each partition, old and new."""
    now = datetime.now(UTC)
    await prepare(database, now)
    records = [make_record(at) for at in (now, now + timedelta(days=40), now - timedelta(days=40))]
    for record in records:
        await add(database, record)
    tables = ["audit_log", *(row["relname"] for row in await connection.fetch(PARTITIONS))]
    filled = [
        table
        for table in tables
        if "TRUNCATE" in change or await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608
    ]
    assert len(filled) >= 4
    for table in filled:
        with pytest.raises(InsufficientPrivilegeError, match="audit log cannot be changed"):
            await connection.execute(change.format(table))
    for record in records:
        assert await find(database, record) == [record]


async def test_records_are_stored_by_month(
    database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """The first moment of a month is in its partition; any other time is stored as well."""
    await prepare(database, datetime(2031, 12, 31, 23, 59, 59, tzinfo=UTC))
    first = datetime(2032, 1, 1, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    expected = {
        first - moment: "audit_log_2031_12",
        first: "audit_log_2032_01",
        datetime(2032, 3, 1, tzinfo=UTC) - moment: "audit_log_2032_02",
        datetime(2032, 3, 1, tzinfo=UTC): "audit_log_default",
        datetime(1971, 1, 1, tzinfo=UTC): "audit_log_default",
    }
    for at, table in expected.items():
        record = make_record(at)
        await add(database, record)
        query = "SELECT tableoid::regclass::text FROM audit_log WHERE id = $1"
        assert await connection.fetchval(query, record.id) == table


@pytest.mark.parametrize("microseconds", [0, 1, 499, 500, 999, 1000, 123_456, 999_999])
async def test_ids_of_the_database_and_of_the_service_agree(
    connection: asyncpg.Connection, microseconds: int
) -> None:
    """The partitions' bounds and the filters use the same least id of a time."""
    at = datetime(2026, 2, 28, 23, 59, 59, microseconds, tzinfo=UTC)
    assert await connection.fetchval("SELECT audit_log_id($1)", at) == audit_record_id(at)


async def test_storage_is_prepared_beside_records_of_that_month(
    database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """They stay in the default partition, and the other months get theirs; twice is no error."""
    record = make_record(datetime(2041, 5, 5, tzinfo=UTC))
    await add(database, record)
    for _ in range(2):
        await prepare(database, record.at)
    names = [row["relname"] for row in await connection.fetch(PARTITIONS)]
    assert [name for name in names if "2041" in name] == ["audit_log_2041_06", "audit_log_2041_07"]
    assert await find(database, record) == [record]


async def test_preparation_does_not_wait_for_a_lock(
    database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """A long transaction on the log only delays it to the next hour, and nothing fails."""
    record = make_record(datetime(2051, 5, 5, tzinfo=UTC))
    async with connection.transaction():
        await connection.execute("SELECT count(*) FROM audit_log")
        await prepare(database, record.at)
        await add(database, record)
    assert not [row for row in await connection.fetch(PARTITIONS) if "2051" in row["relname"]]
    assert await find(database, record) == [record]


async def test_pruning_drops_empty_partitions(
    database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """Of past months whose records have expired; pruning deletes in batches until none is left."""
    first, second = datetime(2011, 1, 1, tzinfo=UTC), datetime(2011, 2, 1, tzinfo=UTC)
    await prepare(database, first)
    kept = make_record(second)
    await add(database, kept)
    await connection.execute(
        "INSERT INTO audit_log SELECT audit_log_id(at), at, 'user', 'x', 'y', 'z' FROM "
        "(SELECT $1::timestamptz + n * interval '1 ms' AS at FROM generate_series(1, 2001) n) t",
        first,
    )
    for more in (True, False):
        async with database.begin() as repositories:
            assert await repositories.audit.prune(second) is more
    await prepare(database, second + timedelta(days=365))
    names = [row["relname"] for row in await connection.fetch(PARTITIONS)]
    assert [name for name in names if "2011" in name] == ["audit_log_2011_02"]
    assert await find(database, kept) == [kept]


async def test_role_of_its_own_can_only_read_add_and_prune(
    database_url: str, database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """With the rights of docs/operations.md; the triggers need not decide."""
    role, record = f"app_{uuid4().hex}", make_record(datetime.now(UTC))
    await prepare(database, record.at)
    await add(database, record)
    tables = ["audit_log", *(row["relname"] for row in await connection.fetch(PARTITIONS))]
    await execute(database_url, f"CREATE ROLE {role}")
    [grants] = re.findall(r"```sql\n(GRANT SELECT.*?)```", OPERATIONS.read_text(), re.DOTALL)
    await execute(database_url, grants.replace("referral_app", role))
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {role}")
        await connection.execute("SET LOCAL referral.audit_pruning = 'on'")
        for change, table in itertools.product(CHANGES, tables):
            with pytest.raises(InsufficientPrivilegeError, match="permission denied"):
                async with connection.transaction():
                    await connection.execute(change.format(table))
        with pytest.raises(InsufficientPrivilegeError, match="records of the last day"):
            async with connection.transaction():
                await connection.execute("SELECT prune_audit_log(now() - interval '1 hour', 10)")
        await connection.execute(
            "SELECT prepare_audit_log(now()), prune_audit_log('2000-01-01Z', 10)"
        )
    await execute(database_url, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert await find(database, record) == [record]


async def test_role_that_may_delete_is_stopped_by_the_triggers(
    database_url: str, database: PostgresDatabase, connection: asyncpg.Connection
) -> None:
    """Only the owner of the tables passes them; any role can set the setting."""
    role, record = f"app_{uuid4().hex}", make_record(datetime.now(UTC))
    await prepare(database, record.at)
    await add(database, record)
    tables = [f"audit_log_{record.at:%Y_%m}", "audit_log"]
    grants = (f"GRANT SELECT, DELETE ON {table} TO {role}" for table in tables)
    await execute(database_url, f"CREATE ROLE {role}; {'; '.join(grants)}")
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {role}")
        await connection.execute("SET LOCAL referral.audit_pruning = 'on'")
        for table in tables:
            with pytest.raises(InsufficientPrivilegeError, match="audit log cannot be changed"):
                async with connection.transaction():
                    await connection.execute(f"DELETE FROM {table}")  # noqa: S608
    await execute(database_url, f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert await find(database, record) == [record]
