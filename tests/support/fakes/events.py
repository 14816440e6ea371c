"""The fake of the event log."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.events import Event, FeedEvent
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeEventLog:
    """Events in dicts."""

    tables: Tables

    async def add(self, *events: Event) -> None:
        self.tables.event_outbox.update({event.id: event for event in events})

    async def add_unlisted(self, event: Event) -> None:
        self.tables.require(is_satisfied=event.id not in self.tables.events, constraint="id")
        self.tables.events[event.id] = event

    async def has_unpublished(self) -> bool:
        return bool(self.tables.event_outbox)

    async def publish(self, limit: int, *, wait: bool) -> list[Event]:  # noqa: ARG002 - serial
        published = list(self.tables.event_outbox.values())[:limit]
        for event in published:
            del self.tables.event_outbox[event.id]
            self.tables.last_event_position += 1
            self.tables.event_positions[event.id] = self.tables.last_event_position
            self.tables.events[event.id] = event
        return published

    async def list_page(
        self, types: Collection[str] | None, *, after: int, limit: int
    ) -> list[FeedEvent]:
        feed = (
            FeedEvent(position, self.tables.events[event_id])
            for event_id, position in self.tables.event_positions.items()
            if position > after
        )
        matching = (each for each in feed if types is None or each.event.type in types)
        return sorted(matching, key=lambda each: each.position)[:limit]

    async def list_between(
        self,
        since: datetime,
        until: datetime,
        types: Collection[str],
        *,
        after: Event | None,
        limit: int,
    ) -> list[Event]:
        matching = sorted(self._between(since, until, types), key=_order)
        return [each for each in matching if after is None or _order(each) > _order(after)][:limit]

    async def count_between(self, since: datetime, until: datetime, types: Collection[str]) -> int:
        return len(self._between(since, until, types))

    async def remove_external_id(self, user_id: UUID) -> None:
        for table in (self.tables.event_outbox, self.tables.events):
            for event in list(table.values()):
                if event.data.get("user_id") == str(user_id) and "external_id" in event.data:
                    table[event.id] = replace(event, data={**event.data, "external_id": None})

    async def prune(self, before: datetime) -> bool:
        for event in list(self.tables.events.values()):
            if event.occurred_at < before:
                del self.tables.events[event.id]
                self.tables.event_positions.pop(event.id, None)
        return False

    def _between(self, since: datetime, until: datetime, types: Collection[str]) -> list[Event]:
        listed = (self.tables.events[event_id] for event_id in self.tables.event_positions)
        return [
            event for event in listed if since <= event.occurred_at < until and event.type in types
        ]


def _order(event: Event) -> tuple[datetime, UUID]:
    return event.occurred_at, event.id
