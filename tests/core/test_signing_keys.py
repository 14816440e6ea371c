"""Changes of signing keys in the audit log."""

from datetime import timedelta

import pytest

from referral.core.entities.audit import SERVICE, AuditAction, AuditFilter
from referral.core.use_cases.signing_keys import REMOVED_AFTER, RecordKeyChanges
from tests.core.service import InMemoryService

ADDED, REMOVED = AuditAction.SIGNING_KEY_ADDED, AuditAction.SIGNING_KEY_REMOVED
MINUTE = timedelta(minutes=1)


async def report(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch, *key_ids: str
) -> list[tuple[str, str]]:
    """Report the keys of a process; return the new records of the audit log."""
    keys = {"keys": [{"kid": key_id} for key_id in key_ids]}
    monkeypatch.setattr(service.access_tokens, "jwks", lambda: keys)
    before = await records(service)
    await service.get(RecordKeyChanges)()
    return (await records(service))[len(before) :]


async def records(service: InMemoryService) -> list[tuple[str, str]]:
    """Return the actions and subjects of the service's records, oldest first."""
    async with service.database.read() as repositories:
        found = await repositories.audit.list_page(
            AuditFilter(actor=SERVICE.id), after=None, limit=100
        )
    return [(each.action, each.subject) for each in reversed(found)]


async def test_added_and_removed_keys_are_recorded_once(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key counts as removed after the time in which every process reports its keys."""
    assert await report(service, monkeypatch, "a") == [(ADDED, "a")]
    assert await report(service, monkeypatch, "b", "a") == [(ADDED, "b")]
    service.clock.advance(minutes=1)
    assert await report(service, monkeypatch, "b") == []
    service.clock.advance(seconds=(REMOVED_AFTER - MINUTE).total_seconds())
    assert await report(service, monkeypatch, "b") == []
    service.clock.advance(seconds=1)
    assert await report(service, monkeypatch, "b") == [(REMOVED, "a")]
    assert await report(service, monkeypatch, "b") == []


async def test_process_with_older_files_changes_nothing(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes read their files at different times; a key that one of them uses is in use."""
    await report(service, monkeypatch, "a")
    for _ in range(30):
        service.clock.advance(minutes=1)
        for key_ids in (("b", "a"), ("a",)):
            await report(service, monkeypatch, *key_ids)
    assert await records(service) == [(ADDED, "a"), (ADDED, "b")]


async def test_keys_are_as_before_after_a_pause(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that did not run for a day reports its keys before it removes others."""
    await report(service, monkeypatch, "a")
    service.clock.advance(days=1)
    assert await report(service, monkeypatch, "a") == []
