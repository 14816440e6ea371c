"""The log of events.

Events are added in the transaction of the change, and become visible in the feed when they are
published, after its commit. So the feed's positions follow the order of the commits, and a reader
who asks for the events after a position misses none.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.events import Event, FeedEvent


class EventLog(Protocol):
    """All events of the last 30 days."""

    async def add(self, *events: Event) -> None:
        """Add events to the transaction; they are stored with its next statement or its commit."""
        ...

    async def add_unlisted(self, event: Event) -> None:
        """Store an event that is never in the feed, such as the test of a webhook."""
        ...

    async def has_unpublished(self) -> bool:
        """Return whether committed events wait for their publication."""
        ...

    async def publish(self, limit: int, *, wait: bool) -> list[Event]:
        """Publish up to `limit` of the oldest committed events; return them in their order.

        Only one transaction publishes at a time. While another one does, the result is empty; with
        `wait`, the call waits instead, and raises `Unavailable` if that takes too long.
        """
        ...

    async def list_page(
        self, types: Collection[str] | None, *, after: int, limit: int
    ) -> list[FeedEvent]:
        """Return published events after a position, oldest first; None means all types."""
        ...

    async def list_between(
        self,
        since: datetime,
        until: datetime,
        types: Collection[str],
        *,
        after: Event | None,
        limit: int,
    ) -> list[Event]:
        """Return published events of since <= occurred_at < until, by time and id.

        `after` is the last event of the previous call.
        """
        ...

    async def count_between(self, since: datetime, until: datetime, types: Collection[str]) -> int:
        """Count the events that `list_between` returns."""
        ...

    async def remove_external_id(self, user_id: UUID) -> None:
        """Remove a user's external id from all events, published or not."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the published events from before a time."""
        ...
