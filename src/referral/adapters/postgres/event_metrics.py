"""Metrics of events and webhooks, read from the database, which knows all workers."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg

from referral.adapters.observability.samples import Sample
from referral.adapters.postgres.connection import DatabaseConnection
from referral.core.entities.webhooks import DisabledReason

OLDEST_UNPUBLISHED = "SELECT occurred_at FROM event_outbox ORDER BY seq LIMIT 1"
WEBHOOKS = """
SELECT id, enabled, disabled_reason, succeeded_attempts, failed_attempts FROM webhooks
"""

MAX_PENDING_COUNTED = 100_000
"""A higher number of pending deliveries is not counted, so that a scrape is fast."""

PENDING = f"""
SELECT count(*) AS pending FROM (
    SELECT 1 FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL LIMIT {MAX_PENDING_COUNTED}
) AS due
"""  # noqa: S608 - a constant

DISABLED_BY_REQUEST = "by_request"
REASONS = (*DisabledReason, DISABLED_BY_REQUEST)


async def read_event_samples(connection: DatabaseConnection) -> list[Sample]:
    """Return the age of the outbox, the attempts by webhook, disabled webhooks and deliveries."""
    unpublished = await connection.fetch_sql(OLDEST_UNPUBLISHED)
    ages = [(datetime.now(UTC) - row["occurred_at"]).total_seconds() for row in unpublished]
    webhooks = await connection.fetch_sql(WEBHOOKS)
    [counted] = await connection.fetch_sql(PENDING)
    disabled = Counter(
        row["disabled_reason"] or DISABLED_BY_REQUEST for row in webhooks if not row["enabled"]
    )
    return [
        Sample("referral_events_oldest_unpublished_seconds", (), max([0, *ages])),
        *(sample for row in webhooks for sample in _attempts(row)),
        *(Sample("referral_webhooks_disabled", (each,), disabled[each]) for each in REASONS),
        Sample("referral_webhook_deliveries_pending", (), counted["pending"]),
    ]


def _attempts(row: asyncpg.Record) -> Iterator[Sample]:
    for outcome in ("succeeded", "failed"):
        labels = (str(row["id"]), outcome)
        yield Sample("referral_webhook_attempts", labels, row[f"{outcome}_attempts"])
