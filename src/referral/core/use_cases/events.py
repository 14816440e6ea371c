"""Publication of events, and the events of codes that expire."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from referral.core.entities.event_patterns import check_patterns, select_types
from referral.core.entities.events import EventType, FeedEvent, code_event
from referral.core.errors import Unavailable
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock

PUBLISHING_BATCH_SIZE = 500
"""Events that one transaction publishes, so that it ends before its timeout."""

EXPIRY_BATCH_SIZE = 200
"""Expired codes that one transaction reports."""


@dataclass(frozen=True, slots=True)
class PublishEvents:
    """Publish the oldest events of committed changes, and create their deliveries to webhooks."""

    database: Database
    fan_out_events: FanOutEvents

    async def __call__(self, *, wait: bool = False) -> bool:
        """Return whether there were any, published by this or by another process.

        With `wait`, events that were committed before the call are published afterwards, unless
        there are more than a batch of them; raises `Unavailable` if that takes too long.
        """
        async with self.database.read() as repositories:
            if not await repositories.events.has_unpublished():
                return False
        async with self.database.begin() as repositories:
            events = await repositories.events.publish(PUBLISHING_BATCH_SIZE, wait=wait)
            await self.fan_out_events(repositories, events)
        return True


@dataclass(frozen=True, slots=True)
class ListEvents:
    """List the events of the feed, oldest first."""

    database: Database
    publish_events: PublishEvents

    async def __call__(
        self, patterns: Collection[str] | None, *, after: int, limit: int
    ) -> list[FeedEvent]:
        """Return the events after a position that match a pattern; None matches all.

        Raises `InvalidRequest` for a pattern that matches no type.
        """
        types = None
        if patterns is not None:
            types = select_types(check_patterns(patterns, field="type"))
        # A publisher that hangs delays new events, and does not hide those that are published.
        with suppress(Unavailable):
            await self.publish_events(wait=True)
        async with self.database.read() as repositories:
            return await repositories.events.list_page(types, after=after, limit=limit)


@dataclass(frozen=True, slots=True)
class ReportExpiredCodes:
    """Record an event for each active code that expired."""

    clock: Clock
    database: Database
    record_events: RecordEvents

    async def __call__(self) -> bool:
        """Return whether there were any expired codes."""
        batch_size, total = EXPIRY_BATCH_SIZE, 0
        while batch_size == EXPIRY_BATCH_SIZE:
            batch_size = await self._report_batch()
            total += batch_size
        return total > 0

    async def _report_batch(self) -> int:
        now = self.clock.now()
        async with self.database.begin() as repositories:
            codes = await repositories.codes.report_expiries(now, EXPIRY_BATCH_SIZE)
            events = [
                code_event(EventType.CODE_EXPIRED, code, now)
                for code in codes
                if not code.is_exhausted
            ]
            await self.record_events(repositories, *events)
        return len(codes)
