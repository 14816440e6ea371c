"""Query plans at 100,000 users: no list or look-up scans a whole table."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.adapters.postgres.read_model import ACCOUNT, CODE_BY_TEXT, CODES_BY_EMAIL
from referral.adapters.postgres.repositories.events import LIST_BY_TYPE
from referral.core.entities.account_view import UserFilter
from referral.core.entities.codes import CodeStatus
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.events import EVENT_RETENTION, FEED_EVENT_TYPES
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import NETWORK_RETENTION
from referral.core.entities.sessions import RefreshToken
from referral.core.entities.users import Role
from referral.core.entities.webhook_deliveries import DeliveryStatus
from referral.core.ports.events import EventLog
from tests.support.fakes.security import FakeFingerprinter

USERS = 100_000
REFERRER, MIDDLE = (UUID(int=number) for number in (1, USERS // 2))
NOW = datetime.now(UTC)
USER_FILTERS = [
    UserFilter(role=role, blocked=blocked, verified=verified)
    for role in (None, *Role)
    for blocked in (None, True, False)
    for verified in (None, True, False)
] + [UserFilter(email_key="u5000@example.com")]

FILL_SQL = """
CREATE FUNCTION id_of(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT lpad(to_hex(number), 32, '0')::uuid $$;
INSERT INTO users SELECT id_of(n), 'U' || n || '@example.com', 'u' || n || '@example.com', 'x',
    'member', 'en', false, true, now() FROM generate_series(1, 100000) n;
INSERT INTO codes SELECT id_of(n), id_of(n), 'CODE' || n, 'CODE' || n, now(),
    now() + interval '1 day', NULL, 0, true, NULL FROM generate_series(1, 100000) n;
INSERT INTO referrals SELECT id_of(n), id_of(1 + n % 100), id_of(n), id_of(1 + n % 100),
    'CODE', 'confirmed', now() FROM generate_series(101, 100000) n;
INSERT INTO sessions SELECT id_of(n), id_of(n), 'first-party', 'account', now(), now()
    FROM generate_series(1, 100000) n;
INSERT INTO profiles SELECT id_of(n), 'Ann', NULL, NULL, NULL, NULL, NULL, now()
    FROM generate_series(1, 100000) n;
INSERT INTO verdicts SELECT sha256(n::text::bytea), 'valid', now()
    FROM generate_series(1, 100000) n;
INSERT INTO one_time_tokens (digest, user_id, purpose, expires_at)
    SELECT sha256(n::text::bytea), id_of(n), 'reset', now() FROM generate_series(1, 100000) n;
INSERT INTO user_networks SELECT id_of(n), sha256(n::text::bytea), now(),
    CASE WHEN n % 2 = 0 THEN now() END FROM generate_series(1, 100000) n;
INSERT INTO user_networks SELECT id_of(n), sha256('a crowd'), now(), now()
    FROM generate_series(1, 5000) n;
INSERT INTO events (id, position, type, occurred_at, data, external_user_id)
    SELECT id_of(n), nextval('event_positions'),
    CASE WHEN n % 1000 = 0 THEN 'user.erased' ELSE 'code.created' END,
    now() - (100000 - n) * interval '1 second', '{}', CASE WHEN n % 2 = 0 THEN id_of(n) END
    FROM generate_series(1, 100000) n;
INSERT INTO webhook_deliveries (id, webhook_id, event_id, event_type, occurred_at, created_at,
    status, attempts, scheduled_failures) SELECT id_of(n), id_of(n / 10000), id_of(n),
    'code.created', now(), now(), 'succeeded', 1, 0 FROM generate_series(1, 20000) n;
INSERT INTO event_outbox (id, type, occurred_at, data, external_user_id)
    SELECT id_of(100000 + position), type, occurred_at, data, external_user_id FROM events;
INSERT INTO refresh_tokens (digest, session_id) SELECT sha256(n::text::bytea), id_of(n)
    FROM generate_series(1, 100000) n;
"""


@pytest.fixture(scope="module")
async def engine(database_url: str) -> Any:
    """A database with that many users and fresh statistics."""
    engine = make_engine(database_url, command_timeout=60)
    async with engine.begin() as connection:
        for statement in FILL_SQL.strip().split(";\n"):
            await connection.exec_driver_sql(statement)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("ANALYZE"))
    yield engine
    await engine.dispose()


def find_scans(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the tables that a plan reads with a sequential scan."""
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for child in plan.get("Plans", []):
        yield from find_scans(child)


async def query_events(events: EventLog) -> None:
    """Send each statement about events."""
    assert await events.has_unpublished()
    await events.publish(10, wait=False)
    await events.remove_external_id(MIDDLE)
    await events.prune(NOW - EVENT_RETENTION)
    for types in (None, ["user.erased"], FEED_EVENT_TYPES):
        await events.list_page(types, after=USERS // 2, limit=20)
    span = NOW - timedelta(hours=12), NOW - timedelta(hours=11)
    await events.list_between(*span, ["user.erased"], after=None, limit=20)
    await events.count_between(*span, ["user.erased"])


async def test_every_query_uses_an_index(engine: AsyncEngine) -> None:
    """Every statement of the repositories is planned without a sequential scan."""
    sent: list[tuple[str, Any]] = [
        (CODES_BY_EMAIL, (["u5000@example.com"],)),
        (CODE_BY_TEXT, ("code5000",)),
        (ACCOUNT, (REFERRER, 10)),
    ]

    async with PostgresDatabase(
        engine, FakeFingerprinter(), PostgresJobQueue
    ).begin() as repositories:
        repositories.connection.driver.add_query_logger(
            lambda logged: sent.append((logged.query, logged.args))
        )
        await repositories.users.find(REFERRER)
        await repositories.users.find_by_email("u5000@example.com")
        await repositories.users.find_by_external_id("shop-1")
        await repositories.users.lock(REFERRER)
        await repositories.user_directory.find(REFERRER)
        await repositories.user_directory.find_by_external_id("shop-1")
        for user_filter in USER_FILTERS:
            for after in (None, MIDDLE):
                await repositories.user_directory.list_page(user_filter, after=after, limit=21)
        await repositories.codes.find(REFERRER, REFERRER)
        await repositories.codes.lock(REFERRER, REFERRER)
        await repositories.codes.lock_enabled_by_text("code5000")
        await repositories.codes.lock_enabled(REFERRER)
        await repositories.codes.count_use(REFERRER, NOW)
        await repositories.codes.retire(REFERRER, only_spent_at=NOW)
        await repositories.codes.find_active(REFERRER, NOW)
        for status in (None, *CodeStatus):
            await repositories.codes.list_page(REFERRER, NOW, status=status, after=None, limit=21)
        for state in (None, *ReferralStatus):
            await repositories.referrals.list_page(REFERRER, status=state, after=MIDDLE, limit=21)
        await repositories.referrals.find_by_referred(MIDDLE)
        await repositories.sessions.lock_by_token(b"\0" * 32)
        for parent in (None, b"\1" * 32):
            await repositories.sessions.mark_used(
                RefreshToken(b"\0" * 32, MIDDLE, None, parent), NOW
            )
        await repositories.one_time_tokens.acquire(b"\0" * 32, TokenPurpose.RESET, NOW, NOW)
        await repositories.one_time_tokens.release(b"\0" * 32, NOW)
        await repositories.sessions.revoke(REFERRER)
        await repositories.profiles.find(REFERRER)
        await repositories.profiles.delete(REFERRER)
        await repositories.verification_results.find((b"\0" * 32, b"\1" * 32), NOW)
        await repositories.verification_results.delete((b"\0" * 32, b"\1" * 32))
        crowd = (hashlib.sha256(b"a crowd").digest(), b"\1" * 32)
        for networks in ((), crowd):
            await repositories.networks.find_facts(MIDDLE, REFERRER, networks, NOW)
        await repositories.networks.add_registration(MIDDLE, b"\1" * 32, NOW, waits=True)
        await repositories.networks.add_visit(MIDDLE, b"\1" * 32, NOW)
        await repositories.networks.delete(MIDDLE)
        await repositories.networks.prune(NOW - NETWORK_RETENTION)
        await repositories.codes.report_expiry(REFERRER)
        await repositories.codes.report_expiries(NOW, 200)
        await query_events(repositories.events)
    assert len(sent) > 26
    async with engine.connect() as connection:
        for statement, parameters in tuple(sent):
            if statement in {"BEGIN", "COMMIT"} or "typeinfo_tree" in statement:
                continue  # asyncpg looks up the types of arrays once for each connection
            explained = await connection.exec_driver_sql(
                f"EXPLAIN (FORMAT JSON) {statement}", parameters
            )
            plan = explained.scalar_one()
            plan = json.loads(plan) if isinstance(plan, str) else plan
            assert not list(find_scans(plan[0]["Plan"])), statement


async def test_feed_of_a_rare_type_skips_other_events(engine: AsyncEngine) -> None:
    """PostgreSQL does not read the feed in its order until it finds enough of them."""
    async with engine.connect() as connection:
        explained = await connection.exec_driver_sql(
            f"EXPLAIN {LIST_BY_TYPE}", (0, 100, ["user.erased"])
        )
        plan = "\n".join(explained.scalars())
    assert "ix_events_type_position" in plan
    assert "uq_events_position" not in plan


@pytest.mark.parametrize("status", [None, DeliveryStatus.SUCCEEDED])
async def test_deliveries_of_an_old_webhook_are_found_first(
    engine: AsyncEngine, status: DeliveryStatus | None
) -> None:
    """PostgreSQL does not read those of all webhooks, of which the newest are another's."""
    sent: list[tuple[str, Any]] = []
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    async with database.read() as repositories:
        driver = repositories.connection.driver
        driver.add_query_logger(lambda logged: sent.append((logged.query, logged.args)))
        old = UUID(int=0)
        assert await repositories.deliveries.list_page(old, status=status, after=None, limit=20)
        await asyncio.sleep(0)  # asyncpg logs a query in the next turn of the event loop
        statement, arguments = sent[-1]
        plan = "\n".join(row[0] for row in await driver.fetch(f"EXPLAIN {statement}", *arguments))
    assert "ix_webhook_deliveries_webhook_id" in plan
    assert "pk_webhook_deliveries" not in plan
