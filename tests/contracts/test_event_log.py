"""The port `EventLog`, and the reports of expired codes."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.entities.events import Event, EventType
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    make_code,
    make_delivery,
    store_code,
    store_user,
    store_webhook,
)

SECOND = timedelta(seconds=1)


@pytest.fixture
async def log(store: Database) -> Database:
    """The database, with no events."""
    if isinstance(store, PostgresDatabase):
        async with store.begin() as repositories:
            await repositories.connection.execute_sql("TRUNCATE event_outbox, events")
            await repositories.connection.execute_sql("UPDATE codes SET enabled = false")
    return store


def make_event(event_type: str = EventType.CODE_CREATED, **changed: Any) -> Event:
    """Return a new event."""
    event_id = ID_GENERATOR.new()
    event = Event(event_id, event_type, NOW, {"code_id": str(event_id), "uses": 1, "reason": None})
    return replace(event, **changed)


async def add(log: Database, *events: Event) -> None:
    """Add events in a transaction."""
    async with log.begin() as repositories:
        await repositories.events.add(*events)


async def publish(log: Database, limit: int = 1000) -> list[Event]:
    """Publish in a transaction."""
    async with log.begin() as repositories:
        return await repositories.events.publish(limit, wait=False)


async def publish_new(log: Database, *types: str) -> list[Event]:
    """Add and publish events of these types."""
    events = [make_event(event_type) for event_type in types]
    await add(log, *events)
    assert await publish(log) == events
    return events


async def test_event_is_published_once_and_in_order(log: Database) -> None:
    """Until then it is not found."""
    events = [make_event() for _ in range(3)]
    await add(log, *events[:2])
    await add(log, events[2])
    async with log.read() as repositories:
        assert await repositories.events.has_unpublished()
        assert await repositories.events.list_page(None, after=0, limit=9) == []
    assert await publish(log, limit=2) == events[:2]
    assert await publish(log, limit=2) == events[2:]
    assert await publish(log) == []
    async with log.read() as repositories:
        assert not await repositories.events.has_unpublished()
        listed = await repositories.events.list_page(None, after=0, limit=9)
    assert [each.event for each in listed] == events
    assert [each.position for each in listed] == sorted({each.position for each in listed})


@pytest.mark.parametrize("count", [1, 19, 20, 21, 45])
async def test_any_number_of_events_is_added(log: Database, count: int) -> None:
    """In their order, with whatever statement comes next."""
    events = [make_event() for _ in range(count)]
    async with log.begin() as repositories:
        await repositories.events.add(*events[:5])
        await repositories.events.add(*events[5:])
        assert await repositories.users.find(ID_GENERATOR.new()) is None
    assert await publish(log) == events


async def test_event_of_a_transaction_that_fails_is_not_stored(log: Database) -> None:
    """Whether a statement came after it or not."""

    async def fail(*, sends_statement: bool) -> None:
        async with log.begin() as repositories:
            await repositories.events.add(make_event())
            if sends_statement:
                await repositories.users.find(ID_GENERATOR.new())
            raise KeyError

    for sends_statement in (False, True):
        with pytest.raises(KeyError):
            await fail(sends_statement=sends_statement)
    assert await publish(log) == []


async def test_feed_goes_on_after_a_position(log: Database) -> None:
    """Also when all earlier events are deleted."""
    events = await publish_new(log, *["code.created"] * 5)
    seen: list[Event] = []
    position = 0
    while page := await list_page(log, None, after=position, limit=2):
        seen += [event for _, event in page]
        position = page[-1][0]
    assert seen == events
    async with log.begin() as repositories:
        assert not await repositories.events.prune(NOW + SECOND)
    assert await list_page(log, None, after=0, limit=9) == []
    [later] = await publish_new(log, "code.created")
    assert [event for _, event in await list_page(log, None, after=position, limit=9)] == [later]


async def list_page(
    log: Database, types: set[str] | None, *, after: int, limit: int
) -> list[tuple[int, Event]]:
    """Return a page of positions and events."""
    async with log.read() as repositories:
        page = await repositories.events.list_page(types, after=after, limit=limit)
    return [(each.position, each.event) for each in page]


async def test_feed_is_filtered_by_types(log: Database) -> None:
    """The types are merged in the order of the feed; an unknown type has no events."""
    events = await publish_new(
        log, "user.erased", "code.created", "code.deleted", "code.created", "user.erased"
    )
    for types in ({"code.created"}, {"code.created", "user.erased"}, {"a.type"}, set[str]()):
        matching = [event for event in events if event.type in types]
        page = await list_page(log, types, after=0, limit=9)
        assert [event for _, event in page] == matching
        page = await list_page(log, types, after=0, limit=2)
        assert [event for _, event in page] == matching[:2]


async def test_type_of_a_later_release_is_kept(log: Database) -> None:
    """Two releases may run beside each other."""
    [event] = await publish_new(log, "code.gilded")
    assert [event for _, event in await list_page(log, None, after=0, limit=9)] == [event]


async def test_unlisted_event_is_in_no_list(log: Database) -> None:
    """By no filter, and not by its time either."""
    event = make_event(EventType.WEBHOOK_TEST)
    async with log.begin() as repositories:
        await repositories.events.add_unlisted(event)
    async with log.read() as repositories:
        types = set(EventType)
        assert await repositories.events.list_page(None, after=0, limit=9) == []
        assert await repositories.events.list_page(types, after=0, limit=9) == []
        assert await list_between(log, NOW, NOW + HOUR, types) == []
        assert await repositories.events.count_between(NOW, NOW + HOUR, types) == 0


async def list_between(
    log: Database, since: datetime, until: datetime, types: set[EventType] | set[str]
) -> list[Event]:
    """Return the events of a time, from pages of two."""
    found: list[Event] = []
    async with log.read() as repositories:
        while page := await repositories.events.list_between(
            since, until, types, after=found[-1] if found else None, limit=2
        ):
            found += page
    return found


async def test_events_of_a_time_are_listed(log: Database) -> None:
    """From `since` until before `until`, by time and id."""
    times = [NOW - SECOND, NOW, NOW, NOW, NOW + SECOND, NOW + HOUR, NOW + HOUR + SECOND]
    events = [make_event("code.created", occurred_at=time) for time in times]
    other = make_event("code.deleted")
    await add(log, *reversed(events), other)
    await publish(log)
    assert await list_between(log, NOW, NOW + HOUR, {"code.created"}) == events[1:5]
    both = {"code.created", "code.deleted"}
    found = await list_between(log, NOW, NOW + HOUR, both)
    assert found == [*events[1:4], other, events[4]]
    async with log.read() as repositories:
        assert await repositories.events.count_between(NOW, NOW + HOUR, both) == 5


async def test_external_id_is_removed_from_all_events_of_a_user(log: Database) -> None:
    """Published or not; the rest of the data stays, and so do the events of others."""
    ann, bob = ID_GENERATOR.new(), ID_GENERATOR.new()

    def about(user_id: UUID) -> Event:
        data = {"user_id": str(user_id), "external_id": "shop|1", "code": "ANN"}
        return make_event("user.registered", data=data)

    published = [about(ann), about(bob)]
    await add(log, *published)
    await publish(log)
    waiting = [about(ann), about(bob)]
    await add(log, *waiting)
    async with log.begin() as repositories:
        await repositories.events.remove_external_id(ann)
    expected = [
        replace(event, data=event.data | {"external_id": None})  # type: ignore[operator]
        for event in (published[0], waiting[0])
    ]
    assert await publish(log) == [expected[1], waiting[1]]
    listed = [event for _, event in await list_page(log, None, after=0, limit=9)]
    assert listed == [expected[0], published[1], expected[1], waiting[1]]


async def test_old_events_are_pruned(log: Database) -> None:
    """Unlisted ones too; events that are not published stay."""
    old, new = make_event(), make_event(occurred_at=NOW + SECOND)
    test = make_event(EventType.WEBHOOK_TEST)
    await add(log, old, new)
    await publish(log)
    waiting, webhook = make_event(), await store_webhook(log)
    await add(log, waiting)
    async with log.begin() as repositories:
        await repositories.events.add_unlisted(test)
        await repositories.deliveries.add([make_delivery(webhook, event_id=test.id)])
        assert len(await repositories.deliveries.list_due(webhook.id, NOW, 9)) == 1
        assert not await repositories.events.prune(NOW + SECOND)
        assert await repositories.deliveries.list_due(webhook.id, NOW, 9) == []
        feed = await repositories.events.list_page(None, after=0, limit=9)
        assert [each.event for each in feed] == [new]
    assert await publish(log) == [waiting]


async def test_expiry_is_reported_once(log: Database) -> None:
    """By `report_expiry` or `report_expiries`, whichever comes first; both ends are inclusive."""
    codes = [
        await store_code(log, await store_user(log), expires_at=NOW + number * SECOND)
        for number in range(4)
    ]
    async with log.begin() as repositories:
        assert await repositories.codes.report_expiry(codes[0].id)
        assert not await repositories.codes.report_expiry(codes[0].id)
        assert await repositories.codes.report_expiries(NOW + 2 * SECOND, 1) == [codes[1]]
        assert await repositories.codes.report_expiries(NOW + 2 * SECOND, 9) == [codes[2]]
        assert await repositories.codes.report_expiries(NOW + 2 * SECOND, 9) == []
        assert not await repositories.codes.report_expiry(codes[2].id)


async def test_expiries_of_disabled_codes_are_not_reported(log: Database) -> None:
    """Deactivated and deleted codes were not active; exhausted ones are marked and returned."""
    ann = await store_user(log)
    await store_code(log, ann, enabled=False)
    deleted = await store_code(log, ann)
    exhausted = await store_code(log, await store_user(log), max_uses=1, uses=1)
    async with log.begin() as repositories:
        await repositories.codes.delete(deleted.id, NOW)
        assert await repositories.codes.report_expiries(NOW + HOUR, 9) == [exhausted]


async def test_renewed_expiry_is_reported_again(log: Database) -> None:
    """Also an earlier one, for a clock that was set back; other changes do not count."""
    code = await store_code(log, await store_user(log))
    async with log.begin() as repositories:
        assert await repositories.codes.report_expiries(NOW + HOUR, 9) == [code]
        await repositories.codes.save(replace(code, max_uses=5))
        assert await repositories.codes.report_expiries(NOW + HOUR, 9) == []
        earlier = replace(code, expires_at=NOW + SECOND)
        await repositories.codes.save(earlier)
        assert await repositories.codes.report_expiries(NOW + HOUR, 9) == [earlier]


@pytest.mark.parametrize(("uses", "is_reported"), [(1, False), (2, True)])
async def test_returned_use_does_not_report_the_expiry_of_an_exhausted_code(
    log: Database, uses: int, *, is_reported: bool
) -> None:
    """A code that was active when it expired is reported."""
    code = await store_code(log, await store_user(log), max_uses=2, uses=uses)
    async with log.begin() as repositories:
        await repositories.codes.revert_use(code.id, NOW + HOUR)
        assert await repositories.codes.report_expiry(code.id) is not is_reported
    unexpired = await store_code(log, await store_user(log), max_uses=2, uses=2)
    async with log.begin() as repositories:
        await repositories.codes.revert_use(unexpired.id, NOW)
        assert await repositories.codes.report_expiry(unexpired.id)


async def test_changes_return_the_codes_of_their_events(log: Database) -> None:
    """`retire` returns the disabled code, `lock_all` the codes that are not deleted."""
    ann = await store_user(log)
    code, inactive = make_code(ann), make_code(ann, enabled=False)
    other = await store_code(log, await store_user(log))
    async with log.begin() as repositories:
        assert await repositories.codes.retire(ann.id) is None
        for each in (code, inactive):
            await repositories.codes.add(each)
        assert await repositories.codes.retire(ann.id, only_spent_at=NOW) is None
        assert await repositories.codes.retire(ann.id, only_spent_at=NOW + HOUR) is not None
        await repositories.codes.save(code)
        assert await repositories.codes.retire(ann.id) == code.deactivated()
        locked = await repositories.codes.lock_all(ann.id, other.id)
        assert sorted(locked, key=lambda each: each.id) == [code.deactivated(), inactive]
        await repositories.codes.delete(code.id, NOW)
        assert await repositories.codes.lock_all(ann.id, None) == [inactive]
