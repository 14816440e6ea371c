"""The audit log, for admins."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.audit import AuditFilter, AuditRecord
from referral.core.entities.page import Page
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class ListAuditRecords:
    """List the records of the audit log, newest first."""

    database: Database

    async def __call__(
        self, wanted: AuditFilter, *, after: UUID | None, limit: int
    ) -> Page[AuditRecord]:
        """Return a page."""
        async with self.database.read() as repositories:
            rows = await repositories.audit.list_page(wanted, after=after, limit=limit + 1)
        return Page.from_rows(rows, limit, lambda record: record.id)
