"""Networks of users, and the facts from which risk is computed, in PostgreSQL."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import bindparam, delete, select

from referral.adapters.postgres.connection import DatabaseConnection, Statement, to_entity
from referral.adapters.postgres.deferred_inserts import DeferredTable
from referral.adapters.postgres.tables import user_networks as table
from referral.core.entities.risk import (
    BURST_WINDOW,
    CROWD_SIZE,
    CROWD_WINDOW,
    MAX_REFERRALS_IN_BURST_WINDOW,
    NETWORK_RETENTION,
    StoredFacts,
    UserNetwork,
)

VISIT_PRECISION = timedelta(hours=1)
"""A later visit within this time is not stored, so that few logins write."""

MAX_OWN_NETWORKS = 100
"""Networks of a user that are compared: somebody may log in from thousands."""

NETWORKS = DeferredTable("user_networks", ("user_id", "digest", "seen_at", "registered_at"))

# The next statement sees the registrations of those who had the lock before.
LOCK_AND_ADD = """
INSERT INTO user_networks (user_id, digest, seen_at, registered_at)
SELECT $1::uuid, $2::bytea, $3::timestamptz, $4::timestamptz
FROM (SELECT pg_advisory_xact_lock($5)) AS network_lock
"""
ADD_VISIT = """
INSERT INTO user_networks AS known (user_id, digest, seen_at) VALUES ($1, $2, $3)
ON CONFLICT (user_id, digest) DO UPDATE SET seen_at = excluded.seen_at WHERE known.seen_at < $4
"""
# Each part reads an index, and stops where more rows do not matter. The orders are those of the
# indexes: without them, the planner hopes to find the rows of a frequent referrer in a scan.
FIND_FACTS = f"""
WITH mine AS (
    SELECT unnest($3::bytea[]) AS digest
    UNION (
        SELECT digest FROM user_networks WHERE user_id = $1 AND seen_at > $4
        LIMIT {MAX_OWN_NETWORKS}
    )
)
SELECT
    (SELECT email_key FROM users WHERE id = $2) AS referrer_email_key,
    EXISTS (
        SELECT FROM mine, LATERAL (
            SELECT FROM user_networks AS theirs
            WHERE theirs.user_id = $2 AND theirs.digest = mine.digest AND seen_at > $4 LIMIT 1
        ) AS found
    ) AS is_network_of_referrer,
    (SELECT count(*) FROM (
        SELECT FROM mine, LATERAL (
            SELECT FROM user_networks AS others
            WHERE others.digest = mine.digest AND registered_at > $5 AND user_id <> $1
            ORDER BY registered_at DESC LIMIT {CROWD_SIZE}
        ) AS found LIMIT {CROWD_SIZE}
    ) AS crowd) AS others_from_network,
    (SELECT count(*) FROM (
        SELECT FROM referrals WHERE referrer_id = $2 AND joined_at > $6
        ORDER BY joined_at DESC LIMIT {MAX_REFERRALS_IN_BURST_WINDOW}
    ) AS recent) AS recent_referrals
"""  # noqa: S608 - of constants
BY_USER = table.c.user_id == bindparam("user_id")
LIST_ALL = Statement(
    select(table.c.seen_at, table.c.registered_at)
    .where(BY_USER)
    .order_by(table.c.seen_at.desc(), table.c.digest)
)
DELETE = Statement(delete(table).where(BY_USER))
PRUNE_BATCH_SIZE = 2000
PRUNE = """
DELETE FROM user_networks WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM user_networks WHERE seen_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class PostgresUserNetworks:
    """The table of networks of users."""

    connection: DatabaseConnection

    async def add_registration(
        self, user_id: UUID, network: bytes, now: datetime, *, waits: bool
    ) -> None:
        row = (user_id, network, now, now)
        if waits:
            lock_key = int.from_bytes(network[:8], signed=True)
            await self.connection.fetch_sql(LOCK_AND_ADD, *row, lock_key)
        else:
            await self.connection.defer(NETWORKS, row)

    async def add_visit(self, user_id: UUID, network: bytes, now: datetime) -> None:
        await self.connection.fetch_sql(ADD_VISIT, user_id, network, now, now - VISIT_PRECISION)

    async def find_facts(
        self, user_id: UUID, referrer_id: UUID, networks: tuple[bytes, ...], now: datetime
    ) -> StoredFacts:
        since = (now - NETWORK_RETENTION, now - CROWD_WINDOW, now - BURST_WINDOW)
        [row] = await self.connection.fetch_sql(FIND_FACTS, user_id, referrer_id, networks, *since)
        return to_entity(StoredFacts, row)

    async def list_all(self, user_id: UUID) -> list[UserNetwork]:
        return await self.connection.fetch_entities(UserNetwork, LIST_ALL, user_id=user_id)

    async def delete(self, user_id: UUID) -> None:
        await self.connection.execute(DELETE, user_id=user_id)

    async def prune(self, before: datetime) -> bool:
        deleted = await self.connection.fetch_sql(PRUNE, before, PRUNE_BATCH_SIZE)
        return len(deleted) == PRUNE_BATCH_SIZE
