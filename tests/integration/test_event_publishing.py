"""The order of the feed, concurrent publishers, and expiries, on PostgreSQL."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.connection import DatabaseConnection, Statement
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.deferred_inserts import DeferredTable
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.tables import users
from referral.adapters.system import SystemClock, SystemIdGenerator
from referral.core.entities.events import Event
from referral.core.errors import EmailTaken, Unavailable
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.use_cases.events import PublishEvents, ReportExpiredCodes
from tests.contracts.rows import make_user, store_code, store_user
from tests.contracts.test_event_log import add, make_event, publish
from tests.support.fakes.security import FakeFingerprinter
from tests.support.fakes.system import FakeClock
from tests.support.waiting import wait_for_value

PROCESSES = 10


def make_publisher(database: PostgresDatabase) -> PublishEvents:
    """Return the use case."""
    return PublishEvents(database, FanOutEvents(SystemClock(), SystemIdGenerator()))


@pytest.fixture(autouse=True)
async def empty_feed(database: PostgresDatabase) -> None:
    """There are no events, and no codes to report."""
    async with database.begin() as repositories:
        await repositories.connection.execute_sql("TRUNCATE event_outbox, events")
        await repositories.connection.execute_sql("UPDATE codes SET enabled = false")


@pytest.fixture
async def processes(database_url: str) -> AsyncIterator[list[PostgresDatabase]]:
    """The database as other processes use it: each has connections of its own."""
    engines = [make_engine(database_url) for _ in range(PROCESSES)]
    yield [PostgresDatabase(each, FakeFingerprinter(), PostgresJobQueue) for each in engines]
    for engine in engines:
        await engine.dispose()


async def read_feed(database: PostgresDatabase, after: int = 0) -> tuple[list[Event], int]:
    """Return the events after a position, in pages of three, and the last position."""
    found: list[Event] = []
    async with database.read() as repositories:
        while page := await repositories.events.list_page(None, after=after, limit=3):
            found += [each.event for each in page]
            after = page[-1].position
    return found, after


async def test_late_commit_is_not_skipped(database: PostgresDatabase) -> None:
    """A transaction that is open while later ones commit delays its own event only."""
    late, early = make_event(), [make_event() for _ in range(3)]
    committing = asyncio.Event()

    async def hold_open() -> None:
        async with database.begin() as repositories:
            await repositories.events.add(late)
            assert await repositories.users.find(make_user().id) is None
            written.set()
            await committing.wait()

    written = asyncio.Event()
    holder = asyncio.create_task(hold_open())
    await written.wait()
    for event in early:
        await add(database, event)
    assert await publish(database) == early
    seen, position = await read_feed(database)
    assert seen == early
    committing.set()
    await holder
    await publish(database)
    assert await read_feed(database, position) == ([late], position + 1)


async def test_locked_event_does_not_delay_the_others(database: PostgresDatabase) -> None:
    """An erasure locks the events of its user."""
    user_id = SystemIdGenerator().new()
    data = {"user_id": str(user_id), "external_id": "shop|1"}
    events = [make_event(data=data), make_event()]
    await add(database, *events)
    async with database.begin() as erasure:
        await erasure.events.remove_external_id(user_id)
        assert await publish(database) == events[1:]
    [published] = await publish(database)
    assert published.data == {"user_id": str(user_id), "external_id": None}


async def test_erasure_finds_what_is_published_meanwhile(
    database: PostgresDatabase, database_url: str
) -> None:
    """It waits for the publisher, and then removes the external id from the published event."""
    user_id = SystemIdGenerator().new()
    event = make_event(data={"user_id": str(user_id), "external_id": "shop|1"})
    await add(database, event)

    async def erase() -> None:
        async with database.begin() as repositories:
            await repositories.events.remove_external_id(user_id)

    async with database.begin() as publisher:
        assert await publisher.events.publish(9, wait=False) == [event]
        erasure = asyncio.create_task(erase())
        await wait_until_blocked(database_url)
    await erasure
    [(published, _)] = [await read_feed(database)]
    assert published[0].data == {"user_id": str(user_id), "external_id": None}


async def wait_until_blocked(database_url: str) -> None:
    """Wait until a statement waits for a lock."""
    watcher = await asyncpg.connect(database_url)
    query = (
        "SELECT 1 FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def is_blocked() -> bool:
        return await watcher.fetchval(query) is not None

    await wait_for_value(is_blocked)
    await watcher.close()


async def test_reader_waits_for_the_publisher(
    database: PostgresDatabase, database_url: str
) -> None:
    """What was committed before is in the feed afterwards; a worker does not wait."""
    event = make_event()
    await add(database, event)
    async with database.begin() as publisher:
        assert await publisher.events.publish(9, wait=False) == [event]
        assert await publish(database) == []
        reader = asyncio.create_task(make_publisher(database)(wait=True))
        await wait_until_blocked(database_url)
    assert await reader
    assert (await read_feed(database))[0] == [event]


@pytest.mark.usefixtures("production_timeouts")
async def test_reader_waits_for_a_bounded_time(database: PostgresDatabase) -> None:
    """A publisher that hangs makes the reader's call `Unavailable`."""
    await add(database, make_event())
    async with database.begin() as publisher:
        await publisher.events.publish(9, wait=False)
        with pytest.raises(Unavailable):
            await make_publisher(database)(wait=True)


async def test_concurrent_publishers_publish_each_event_once(
    processes: list[PostgresDatabase],
) -> None:
    """While changes commit, with a reader that goes on from its last position."""
    total = 300
    written, seen, position = 0, list[Event](), 0
    events = [make_event() for _ in range(total)]

    async def write(part: list[Event], process: PostgresDatabase) -> None:
        nonlocal written
        for event in part:
            await add(process, event)
            written += 1

    async def publish_all(process: PostgresDatabase) -> None:
        publish_events = make_publisher(process)
        while written < total or await publish_events():
            await publish_events()
            await asyncio.sleep(0)

    async def read() -> None:
        nonlocal position
        while len(seen) < total:
            new, position = await read_feed(processes[0], position)
            seen.extend(new)
            await asyncio.sleep(0)

    parts = [events[number::PROCESSES] for number in range(PROCESSES)]
    await asyncio.gather(
        *(write(part, process) for part, process in zip(parts, processes, strict=True)),
        *(publish_all(process) for process in processes),
        read(),
    )
    assert Counter(event.id for event in seen) == Counter(event.id for event in events)
    for part in parts:
        ids = {event.id for event in part}
        assert [event.id for event in seen if event.id in ids] == [event.id for event in part]


async def test_concurrent_workers_report_each_expiry_once(
    database: PostgresDatabase, processes: list[PostgresDatabase]
) -> None:
    """Also when their clocks jump and they begin again."""
    codes = [await store_code(database, await store_user(database)) for _ in range(450)]
    clocks = [FakeClock() for _ in processes]

    async def report(process: PostgresDatabase, clock: FakeClock) -> None:
        report_expired = ReportExpiredCodes(clock, process, RecordEvents(SystemIdGenerator()))
        for days in (1, -400, 401):
            await report_expired()
            clock.advance(days=days)

    await asyncio.gather(*(report(*pair) for pair in zip(processes, clocks, strict=True)))
    while await publish(database):
        pass
    reported = [event.data["code_id"] for event in (await read_feed(database))[0]]
    assert Counter(reported) == Counter(str(code.id) for code in codes)


async def test_events_cost_no_statement_of_their_own(database: PostgresDatabase) -> None:
    """The next statement carries them, of whatever kind; without one, the commit stores them."""
    sent: list[str] = []
    events = [make_event() for _ in range(5)]
    async with database.begin() as repositories:
        connection = repositories.connection
        connection.driver.add_query_logger(lambda logged: sent.append(logged.query))
        for event, statement in zip(
            events,
            (
                "SELECT 1",
                "  with one AS (SELECT 1 AS x) SELECT x FROM one",
                "WITH RECURSIVE numbers AS (SELECT 1) SELECT * FROM numbers",
                "VALUES (1)",
            ),
            strict=False,
        ):
            await repositories.events.add(event)
            await connection.fetch_sql(statement)
        await repositories.events.add(events[4])
    carried = [statement.count("INSERT INTO event_outbox") for statement in sent]
    assert carried[:7] == [1, 1, 1, 0, 1, 0, 1]
    assert await publish(database) == events


async def test_event_of_a_failing_statement_is_undone(database: PostgresDatabase) -> None:
    """With the transaction."""
    user = await store_user(database)

    async def register() -> None:
        async with database.begin() as repositories:
            await repositories.events.add(make_event())
            await repositories.users.add(make_user(email_key=user.email_key))

    with pytest.raises(EmailTaken):
        await register()
    assert await publish(database) == []


async def test_rows_are_deferred_in_transactions_only(database: PostgresDatabase) -> None:
    """Outside of one, nothing would insert them for sure."""
    async with database.read() as repositories:
        with pytest.raises(RuntimeError, match="transaction"):
            await repositories.events.add(make_event())


async def test_rows_of_several_tables_are_deferred(database: PostgresDatabase) -> None:
    """One statement carries them all."""
    tables = [DeferredTable(f"numbers_{number}", ("a", "b")) for number in range(2)]
    async with database.begin() as repositories:
        connection: DatabaseConnection = repositories.connection
        for table in tables:
            await connection.execute_sql(f"CREATE TEMP TABLE {table.name} (a int, b text)")
            await connection.defer(table, (1, "one"), (2, "two"))
        user = await store_user(database)
        by_id = Statement(users.select().where(users.c.id == user.id))
        assert await connection.fetch_one(by_id) is not None
        for table in tables:
            rows = await connection.fetch_sql(f"TABLE {table.name}")
            assert [tuple(row) for row in rows] == [(1, "one"), (2, "two")]
