"""Imports of users, codes and referrals from other services."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from referral.core.entities.audit import OPERATOR, AuditAction, AuditRecord, make_audit_record
from referral.core.entities.imports import (
    ImportCounts,
    ImportedRow,
    ImportKind,
    ImportProgress,
    RejectedLine,
)
from referral.core.errors import InvalidRequest
from referral.core.policies.import_rows import ImportRows
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.imports import (
    Batch,
    ImportFile,
    ImportSession,
    ImportStore,
    RejectedLines,
)
from referral.core.ports.security import Fingerprinter, PasswordHasher
from referral.core.ports.system import Clock, IdGenerator

ReportProgress = Callable[[ImportProgress], None]

NEXT_KIND = {
    ImportKind.USER: ImportKind.CODE,
    ImportKind.CODE: ImportKind.REFERRAL,
    ImportKind.REFERRAL: None,
}


@dataclass(frozen=True, slots=True)
class BatchRows:
    """A batch, its valid lines as rows, and the others."""

    batch: Batch
    rows: list[ImportedRow]
    invalid: list[RejectedLine]


@dataclass(frozen=True, slots=True)
class ImportLines:
    """Import a file: its users, then its codes, then its referrals, in transactions of a batch.

    An import that was killed continues after its last transaction. Mails are not sent, and events
    are not written.
    """

    clock: Clock
    email_parser: EmailParser
    fingerprinter: Fingerprinter
    id_generator: IdGenerator
    password_hasher: PasswordHasher
    import_store: ImportStore

    async def __call__(
        self,
        file: ImportFile,
        rejected: RejectedLines,
        report: ReportProgress,
        *,
        dry_run: bool = False,
    ) -> Mapping[ImportKind, ImportCounts]:
        """Return the numbers of lines; raises `Conflict` if another process imports the file."""
        now = self.clock.now()
        async with self.import_store.open(file.digest, now, dry_run=dry_run) as session:
            progress = session.progress
            if progress == ImportProgress():
                async with session.transaction():
                    await session.record(self._audit(AuditAction.IMPORT_STARTED, file))
            with rejected.open(progress.rejected_bytes) as is_complete:
                if not is_complete:
                    progress = ImportProgress()
                progress = await self._import(file, rejected, session, progress, report)
                rejected.publish()
            async with session.transaction():
                await session.record(self._audit(AuditAction.IMPORT_FINISHED, file))
                await session.finish()
        return progress.counts

    def _audit(self, action: AuditAction, file: ImportFile) -> AuditRecord:
        """Return a record of the operator; its subject is the SHA-256 digest of the file."""
        random_bits = self.id_generator.new().int
        return make_audit_record(self.clock.now(), random_bits, OPERATOR, action, file.digest.hex())

    async def _import(
        self,
        file: ImportFile,
        rejected: RejectedLines,
        session: ImportSession,
        progress: ImportProgress,
        report: ReportProgress,
    ) -> ImportProgress:
        rows = ImportRows(
            self.email_parser, self.fingerprinter, self.password_hasher, session.started_at
        )
        # The thread makes the rows of the next batch while the database stores this one.
        with ThreadPoolExecutor(max_workers=1) as thread:
            following = thread.submit(_read_rows, file, rows, progress)
            while progress.kind is not None:
                read = await asyncio.wrap_future(following)
                following = thread.submit(_read_rows, file, rows, _move(progress, read.batch))
                async with session.transaction():
                    progress = await _store(session, rejected, progress, read)
                    await session.save(progress)
                report(progress)
        return progress


async def _store(
    session: ImportSession, rejected: RejectedLines, progress: ImportProgress, read: BatchRows
) -> ImportProgress:
    """Add the rows of a batch, and write its rejected lines; return the progress after it."""
    kind, rows = progress.kind or ImportKind.USER, read.rows
    added, conflicts = await session.add(kind, rows) if rows else (0, [])
    found = sorted((*read.invalid, *conflicts), key=lambda each: each.line)
    size = rejected.write(kind, _with_texts(found, read.batch))
    counts = ImportCounts(added, len(rows) - added - len(conflicts), len(found))
    return replace(
        _move(progress, read.batch),
        rejected_bytes=progress.rejected_bytes | {kind: size},
        counts=progress.counts | {kind: progress.counts.get(kind, ImportCounts()).plus(counts)},
    )


def _read_rows(file: ImportFile, rows: ImportRows, progress: ImportProgress) -> BatchRows:
    """Read the batch at a position; there is none after the last kind."""
    if progress.kind is None:
        return BatchRows(Batch([], [], 0, 1, is_last=True), [], [])
    batch = file.read(progress.kind, progress.offset, progress.line)
    made: list[ImportedRow] = []
    rejected = [RejectedLine(line.number, line.reason) for line in batch.invalid]
    make = rows.maker(progress.kind)
    for line in batch.lines:
        try:
            made.append(make(line))
        except InvalidRequest as error:
            rejected.append(RejectedLine(line.number, f"{error.field}: {error.detail}"))
    return BatchRows(batch, made, rejected)


def _with_texts(found: list[RejectedLine], batch: Batch) -> list[tuple[RejectedLine, bytes]]:
    numbers = {each.line for each in found}
    texts = {line.number: line.text for line in batch.lines if line.number in numbers}
    texts |= {line.number: line.text for line in batch.invalid}
    return [(each, texts[each.line]) for each in found]


def _move(progress: ImportProgress, batch: Batch) -> ImportProgress:
    """Return the position after a batch."""
    if batch.is_last and progress.kind is not None:
        return replace(progress, kind=NEXT_KIND[progress.kind], offset=0, line=1)
    return replace(progress, offset=batch.offset, line=batch.line)
