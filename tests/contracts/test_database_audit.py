"""The port `AuditLog`."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from referral.core.entities.audit import AuditFilter, AuditRecord, audit_record_id
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW

MICROSECOND = timedelta(microseconds=1)
TIMES = (NOW - HOUR, NOW - MICROSECOND, NOW, NOW + MICROSECOND)


def make_record(at: datetime = NOW, **changed: Any) -> AuditRecord:
    """Return a new record about a subject of its own."""
    record_id, subject = audit_record_id(at, ID_GENERATOR.new().int), str(ID_GENERATOR.new())
    record = AuditRecord(record_id, at, "user", subject, "user.blocked", subject, "spam")
    return replace(record, **changed)


async def add(store: Database, *records: AuditRecord) -> None:
    """Store records in one transaction."""
    async with store.begin() as repositories:
        for record in records:
            await repositories.audit.add(record)


async def list_records(store: Database, wanted: AuditFilter) -> list[AuditRecord]:
    """Return all records of a list, read in pages of two."""
    found: list[AuditRecord] = []
    async with store.read() as repositories:
        while True:
            after = found[-1].id if found else None
            page = await repositories.audit.list_page(wanted, after=after, limit=2)
            found += page
            if len(page) < 2:
                return found


async def test_record_is_stored_as_it_is(store: Database) -> None:
    """With a reason or without one; `at` keeps its microseconds."""
    with_reason = make_record()
    without = make_record(reason=None)
    await add(store, with_reason, without)
    for record in (with_reason, without):
        assert await list_records(store, AuditFilter(subject=record.subject)) == [record]


async def test_record_of_a_transaction_that_fails_is_not_stored(store: Database) -> None:
    """It is part of the change."""
    record = make_record()

    async def add_and_fail() -> None:
        async with store.begin() as repositories:
            await repositories.audit.add(record)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await add_and_fail()
    assert await list_records(store, AuditFilter(subject=record.subject)) == []


TEXT_FILTERS = ("actor", "subject", "action")
FILTERS = [
    names
    for count in range(1, 6)
    for names in itertools.combinations((*TEXT_FILTERS, "since", "until"), count)
]


@pytest.mark.parametrize("names", FILTERS, ids="+".join)
async def test_filters_are_combined(store: Database, names: tuple[str, ...]) -> None:
    """All records that meet every filter are listed, newest first; `until` is exclusive."""
    key = ID_GENERATOR.new().hex
    records = [
        make_record(at, actor=key + actor, subject=key + subject, action=key + action)
        for at in TIMES
        for actor in "ab"
        for subject in "ab"
        for action in "ab"
    ]
    await add(store, *records)
    values: dict[str, Any] = dict.fromkeys(names, f"{key}a")
    values |= {"since": NOW - MICROSECOND} if "since" in names else {}
    values |= {"until": NOW + MICROSECOND} if "until" in names else {}
    expected = [
        record
        for record in records
        if all(values.get(name) in {None, getattr(record, name)} for name in TEXT_FILTERS)
        and ("since" not in names or record.at >= NOW - MICROSECOND)
        and ("until" not in names or record.at < NOW + MICROSECOND)
    ]
    listed = [
        record
        for record in await list_records(store, AuditFilter(**values))
        if record.actor.startswith(key)
    ]
    assert listed == sorted(expected, key=lambda record: record.id, reverse=True)
    assert [record.at for record in listed] == sorted((r.at for r in listed), reverse=True)


@pytest.mark.parametrize("year", [1, 1969, 9999])
async def test_any_time_is_a_filter(store: Database, year: int) -> None:
    """Also one before 1970, which an id cannot contain."""
    record, at = make_record(), datetime(year, 1, 1, tzinfo=UTC)
    await add(store, record)
    since = await list_records(store, AuditFilter(subject=record.subject, since=at))
    until = await list_records(store, AuditFilter(subject=record.subject, until=at))
    assert (since, until) == (([], [record]) if year == 9999 else ([record], []))


async def test_old_records_are_pruned(store: Database) -> None:
    """Those from before a time, in any month, whether or not storage was prepared for it."""
    old = NOW - timedelta(days=400)
    kept, expired = make_record(old), make_record(old - MICROSECOND)
    await add(store, kept, expired)
    async with store.begin() as repositories:
        await repositories.audit.prepare_storage(NOW)
        assert await repositories.audit.prune(old) is False
    assert await list_records(store, AuditFilter(subject=kept.subject)) == [kept]
    assert await list_records(store, AuditFilter(subject=expired.subject)) == []
