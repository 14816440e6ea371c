"""The fake of the audit log."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.audit import AuditFilter, AuditRecord
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeAuditLog:
    """Records in a dict."""

    tables: Tables

    async def add(self, record: AuditRecord) -> None:
        self.tables.require(is_satisfied=record.id not in self.tables.audit, constraint="pk")
        self.tables.audit[record.id] = record

    async def list_page(
        self, wanted: AuditFilter, *, after: UUID | None, limit: int
    ) -> list[AuditRecord]:
        matching = [
            record
            for record in self.tables.audit.values()
            if _matches(record, wanted) and (after is None or record.id < after)
        ]
        return sorted(matching, key=lambda record: record.id, reverse=True)[:limit]

    async def prepare_storage(self, now: datetime) -> None:
        """Do nothing: a dict needs no preparation."""

    async def prune(self, before: datetime) -> bool:
        for record in list(self.tables.audit.values()):
            if record.at < before:
                del self.tables.audit[record.id]
        return False


def _matches(record: AuditRecord, wanted: AuditFilter) -> bool:
    return (
        wanted.actor in {None, record.actor}
        and wanted.subject in {None, record.subject}
        and wanted.action in {None, record.action}
        and (wanted.since is None or record.at >= wanted.since)
        and (wanted.until is None or record.at < wanted.until)
    )
