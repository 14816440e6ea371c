"""Query plans of the audit log and of the lists for admins."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.repositories import codes_by_status
from referral.core.entities.audit import AuditFilter, audit_record_id
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter

START = datetime(2030, 1, 1, tzinfo=UTC)
MONTHS = 6
MOST_FILTERED_OUT = 2000
MIDDLE = START + timedelta(days=90)

# Each actor, subject and action has records in all months, and each pair of them.
FILL_AUDIT_SQL = """
INSERT INTO audit_log SELECT audit_log_id(at), at, 'user', 'actor ' || n % 7, 'action ' || n % 11,
    'subject ' || n % 13 FROM (SELECT n, '2030-01-01Z'::timestamptz + n * interval '2 minutes' AS at
    FROM generate_series(1, 6 * 30 * 24 * 30) n) AS record
"""
# `A`, `B` and `C` are frequent, but never in one record.
FILL_PAIRS_SQL = """
INSERT INTO audit_log SELECT audit_log_id(at), at, 'user', CASE n % 3 WHEN 0 THEN 'A' ELSE 'a' END,
    CASE n % 3 WHEN 1 THEN 'B' ELSE 'b' END, CASE n % 3 WHEN 2 THEN 'C' ELSE 'c' END
    FROM (SELECT n, '2030-01-01T00:01Z'::timestamptz + n * interval '2 minutes' AS at
    FROM generate_series(1, 6 * 30 * 24 * 30) n) AS record
"""
FILL_SQL = """
CREATE FUNCTION id_of(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT lpad(to_hex(number), 32, '0')::uuid $$;
INSERT INTO users SELECT id_of(n), 'U' || n || '@example.com', 'u' || n || '@example.com', 'x',
    'member', 'en', false, true, now() FROM generate_series(1, 50000) n;
INSERT INTO codes (id, user_id, text, text_key, created_at, expires_at, max_uses, uses, enabled)
    SELECT id_of(n), id_of(n), 'CODE' || n, 'CODE' || n, now(), now() + interval '1 day',
    CASE WHEN n % 1000 = 0 THEN 1 END, (n % 1000 = 0)::int, n % 1000 = 1
    FROM generate_series(1, 50000) n;
INSERT INTO referrals (id, referrer_id, referred_id, code_id, code, status, joined_at, held)
    SELECT id_of(n), id_of(1 + n % 100), id_of(n), id_of(1 + n % 100), 'CODE',
    CASE n % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'rejected' ELSE 'confirmed' END,
    '2030-01-01Z'::timestamptz + n * interval '1 minute', n % 100 = 0
    FROM generate_series(101, 50000) n;
INSERT INTO users SELECT id_of(n), 'U' || n || '@example.com', 'u' || n || '@example.com', 'x',
    'member', 'en', false, true, now() FROM generate_series(50001, 90000) n;
INSERT INTO codes (id, user_id, text, text_key, created_at, expires_at, enabled)
    VALUES (id_of(50001), id_of(50001), 'CODE50001', 'CODE50001', now(), now(), false);
INSERT INTO referrals (id, referrer_id, referred_id, code_id, code, status, joined_at)
    SELECT id_of(n), id_of(50001), id_of(n), id_of(50001), 'CODE50001', 'confirmed',
    '2030-01-01Z'::timestamptz + (n - 50000) * interval '1 minute'
    FROM generate_series(50002, 90000) n
"""
# The referrer of the last referrals; none of them is rejected or held. All pending ones are held.
ALL_CONFIRMED = UUID(int=50_001)


@pytest.fixture(scope="module")
async def filled_url(database_url: str) -> AsyncIterator[str]:
    """A database with half a year of records, and fresh statistics."""
    connection = await asyncpg.connect(database_url)
    for month in range(1, MONTHS + 1):
        await connection.execute("SELECT prepare_audit_log($1)", START.replace(month=month))
    await connection.execute(FILL_AUDIT_SQL)
    await connection.execute(FILL_PAIRS_SQL)
    for statement in FILL_SQL.strip().split(";\n"):
        await connection.execute(statement)
    await connection.execute("ANALYZE")
    yield database_url
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a plan that were executed."""
    if plan.get("Actual Loops"):
        yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def explain(
    database: PostgresDatabase, statement: tuple[str, list[object]]
) -> list[dict[str, Any]]:
    """Run a statement; return the nodes of its plan."""
    sql, arguments = statement
    async with database.read() as repositories:
        rows = await repositories.connection.fetch_sql(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments
        )
    return list(nodes(rows[0][0][0]["Plan"]))


TEXTS = {"actor": "actor 3", "subject": "subject 5", "action": "action 7"}
TIMES = {"since": MIDDLE - timedelta(days=40), "until": MIDDLE}
AUDIT_FILTERS = [
    dict(texts) | times
    for count in range(3)
    for texts in itertools.combinations(TEXTS.items(), count)
    for times in ({}, {"since": TIMES["since"]}, {"until": TIMES["until"]}, TIMES)
]


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize("after", [None, audit_record_id(MIDDLE)])
@pytest.mark.parametrize("wanted", AUDIT_FILTERS, ids="+".join)
async def test_page_of_the_audit_log_reads_an_index(
    database: PostgresDatabase, wanted: dict[str, Any], after: UUID | None
) -> None:
    """In its order: no sort, and no scan. The planner prefers the index of one filter to that of
    two where both are frequent, because its rows are neighbours in the table.
    """
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
        page = await repositories.audit.list_page(AuditFilter(**wanted), after=after, limit=20)
    assert len(page) == 20
    await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
    read = await explain(database, sent[0])
    assert not [node["Node Type"] for node in read if "Sort" in node["Node Type"]]
    scans = [node for node in read if "Scan" in node["Node Type"]]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    assert sum(node.get("Rows Removed by Filter", 0) for node in scans) <= MOST_FILTERED_OUT


RARE = {"actor": "A", "action": "B", "subject": "C"}


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize(
    "names",
    [names for count in (2, 3) for names in itertools.combinations(RARE, count)],
    ids="+".join,
)
async def test_rare_pair_of_frequent_filters_is_found_by_its_index(
    database: PostgresDatabase, names: tuple[str, ...]
) -> None:
    """Otherwise its page would read all records of one of the filters."""
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
        values: dict[str, Any] = {name: RARE[name] for name in names}
        wanted = AuditFilter(**values)
        assert await repositories.audit.list_page(wanted, after=None, limit=20) == []
    await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
    read = await explain(database, sent[0])
    assert sum(node.get("Rows Removed by Filter", 0) for node in read) == 0


REFERRAL_FILTERS = [
    ReferralFilter(),
    *(ReferralFilter(status=status) for status in ReferralStatus),
    ReferralFilter(referrer_id=UUID(int=7)),
    ReferralFilter(code="code7"),
    ReferralFilter(held=True),
    ReferralFilter(since=START, until=START + timedelta(days=9)),
    ReferralFilter(until=START + timedelta(days=30)),
    ReferralFilter(referrer_id=UUID(int=7), held=False),
    ReferralFilter(status=ReferralStatus.CONFIRMED, referrer_id=UUID(int=7)),
    ReferralFilter(status=ReferralStatus.CONFIRMED, code="code7", referrer_id=UUID(int=7)),
]


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize("after", [None, UUID(int=30_000)])
@pytest.mark.parametrize("wanted", REFERRAL_FILTERS, ids=str)
async def test_page_of_referrals_reads_an_index(
    database: PostgresDatabase, wanted: ReferralFilter, after: UUID | None
) -> None:
    """Whatever the filter, and at any depth."""
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
        page = await repositories.referral_search.list_page(wanted, after=after, limit=20)
    assert len(page) == 20
    await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
    read = await explain(database, sent[0])
    assert not [node for node in read if node["Node Type"] in {"Sort", "Seq Scan"}]
    assert sum(node.get("Rows Removed by Filter", 0) for node in read) <= 1  # of the last page


FREQUENT_BUT_APART = [
    ReferralFilter(status=ReferralStatus.REJECTED, referrer_id=ALL_CONFIRMED),
    ReferralFilter(status=ReferralStatus.REJECTED, code="code50001"),
    ReferralFilter(status=ReferralStatus.CONFIRMED, held=True),
    ReferralFilter(status=ReferralStatus.PENDING, held=False),
    ReferralFilter(referrer_id=ALL_CONFIRMED, held=True),
    ReferralFilter(code="code50001", held=True),
    ReferralFilter(referrer_id=UUID(int=7), code="code50001"),
]


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize("after", [None, UUID(int=30_000)])
@pytest.mark.parametrize("wanted", FREQUENT_BUT_APART, ids=str)
async def test_rare_pair_of_frequent_filters_of_referrals_reads_no_other(
    database: PostgresDatabase, wanted: ReferralFilter, after: UUID | None
) -> None:
    """Otherwise its page would read all referrals of one of the filters."""
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
        assert await repositories.referral_search.list_page(wanted, after=after, limit=20) == []
    await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
    read = await explain(database, sent[0])
    assert not [node for node in read if node["Node Type"] == "Seq Scan"]
    removed = sum(node.get("Rows Removed by Filter", 0) for node in read)
    assert removed <= 1  # the code of another referrer


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize(
    "wanted",
    [CodeFilter(), CodeFilter(user_id=UUID(int=7)), CodeFilter(code="code7")],
    ids=str,
)
async def test_page_of_codes_reads_an_index(database: PostgresDatabase, wanted: CodeFilter) -> None:
    """No other codes are read."""
    page, [read] = await read_codes(database, wanted, datetime.now(UTC), after=None)
    assert page
    sorted_rows = [node["Actual Rows"] for node in read if node["Node Type"] == "Sort"]
    assert sum(sorted_rows) <= 1  # the only code with a text
    assert not [node for node in read if node["Node Type"] == "Seq Scan"]
    assert sum(node.get("Rows Removed by Filter", 0) for node in read) == 0


@pytest.mark.usefixtures("filled_url")
@pytest.mark.parametrize("after", [None, UUID(int=30_000)], ids=["first", "middle"])
@pytest.mark.parametrize("days", [0, 2], ids=["live", "expired"])
@pytest.mark.parametrize("status", CodeStatus)
async def test_page_of_a_status_of_codes_skips_the_others(
    database: PostgresDatabase, status: CodeStatus, days: int, after: UUID | None
) -> None:
    """Nearly all codes are inactive, and two days later all are expired."""
    now = datetime.now(UTC) + timedelta(days=days)
    _, plans = await read_codes(database, CodeFilter(status=status), now, after=after)
    scans = [node for read in plans for node in read if "Relation Name" in node]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    rows = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in scans
    )
    assert rows <= codes_by_status.NEIGHBOURS + 100


async def read_codes(
    database: PostgresDatabase, wanted: CodeFilter, now: datetime, *, after: UUID | None
) -> tuple[list[Code], list[list[dict[str, Any]]]]:
    """Return a page, and the nodes of the plan of each statement."""
    sent: list[tuple[str, list[object]]] = []
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, list(logged.args))))
        page = await repositories.code_search.list_page(wanted, now, after=after, limit=20)
    await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
    asked = [each for each in sent if "typeinfo_tree" not in each[0]]
    return page, [await explain(database, each) for each in asked]
