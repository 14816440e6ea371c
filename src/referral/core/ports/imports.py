"""Imports: the file, the rejected lines, and the tables that lines are added to."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.audit import AuditRecord
from referral.core.entities.imports import (
    ImportedRow,
    ImportKind,
    ImportProgress,
    RejectedLine,
)
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role


class UserLine(Protocol):
    """A line of the type `user`, of valid types."""

    email: str | None
    id: UUID | None
    external_id: str | None
    email_verified: bool
    password_hash: str | None
    locale: Locale
    role: Role
    created_at: datetime | None
    blocked: bool
    notify_on_referral: bool
    erased: bool


class CodeLine(Protocol):
    """A line of the type `code`, of valid types."""

    user: str
    code: str
    expires_at: datetime
    id: UUID | None
    max_uses: int | None
    uses: int
    active: bool
    created_at: datetime | None
    deleted: bool


class ReferralLine(Protocol):
    """A line of the type `referral`, of valid types."""

    user: str
    referrer: str
    code: str | None
    status: ReferralStatus
    held: bool
    reason: str | None
    joined_at: datetime | None


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the file; `value` has the type of the batch."""

    number: int
    text: bytes
    value: UserLine | CodeLine | ReferralLine


@dataclass(frozen=True, slots=True)
class InvalidLine:
    """A line that is not valid JSON, or has not the fields of its type."""

    number: int
    text: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one kind; `offset` and `line` are the position after them."""

    lines: list[SourceLine]
    invalid: list[InvalidLine]
    offset: int
    line: int
    is_last: bool


class ImportFile(Protocol):
    """The file of an import. Its lines are read in batches of bounded size."""

    @property
    def digest(self) -> bytes: ...

    @property
    def size(self) -> int: ...

    def read(self, kind: ImportKind, offset: int, line: int) -> Batch:
        """Read lines from a position; lines of unknown kinds are invalid ones of the first."""
        ...


class RejectedLines(Protocol):
    """The lines that are rejected, in the order of the file."""

    def open(self, sizes: dict[ImportKind, int]) -> AbstractContextManager[bool]:
        """Open for the block, and drop what was written after these sizes were returned.

        Yields False, with everything dropped, if what was written before is missing.
        """
        ...

    def write(self, kind: ImportKind, lines: Sequence[tuple[RejectedLine, bytes]]) -> int:
        """Store lines with their texts durably; return the size of what is stored of the kind."""
        ...

    def publish(self) -> None:
        """Make the complete result visible; without rejected lines, remove an earlier one."""
        ...


class ImportSession(Protocol):
    """An import in the database."""

    @property
    def started_at(self) -> datetime: ...

    @property
    def progress(self) -> ImportProgress: ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Commit the additions and the progress of the block together."""
        ...

    async def add(
        self, kind: ImportKind, rows: Sequence[ImportedRow]
    ) -> tuple[int, list[RejectedLine]]:
        """Add rows of one kind; return how many are new, and those that cannot be added.

        The others are there already, from the same line or with the same id.
        """
        ...

    async def save(self, progress: ImportProgress) -> None:
        """Store the progress; raises `Conflict` if another process has changed it."""
        ...

    async def record(self, record: AuditRecord) -> None:
        """Add a record to the audit log."""
        ...

    async def finish(self) -> None:
        """Make `uses` of codes at least the number of their referrals, and forget the progress."""
        ...


class ImportStore(Protocol):
    """The tables that lines are added to."""

    def open(
        self, digest: bytes, now: datetime, *, dry_run: bool
    ) -> AbstractAsyncContextManager[ImportSession]:
        """Continue the import of a file, or start it; nothing of a dry run remains."""
        ...
