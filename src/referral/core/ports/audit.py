"""The audit log."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.audit import AuditFilter, AuditRecord


class AuditLog(Protocol):
    """Records of changes. They are added in the transaction of the change, and never changed."""

    async def add(self, record: AuditRecord) -> None:
        """Add a record with the id of the current request.

        It is stored with the transaction's next statement or its commit.
        """
        ...

    async def list_page(
        self, wanted: AuditFilter, *, after: UUID | None, limit: int
    ) -> list[AuditRecord]:
        """Return records, newest first; `after` is the last id of the previous page."""
        ...

    async def prepare_storage(self, now: datetime) -> None:
        """Prepare the storage for the records of the next months, and drop that of past ones."""
        ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the records from before a time."""
        ...
