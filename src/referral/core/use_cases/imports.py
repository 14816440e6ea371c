"""Imports of users, codes and referrals from other services."""

from collections.abc import Callable, Mapping, Sequence
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
        while progress.kind is not None:
            batch = file.read(progress.kind, progress.offset, progress.line)
            made, invalid = _make_rows(rows, progress.kind, batch)
            async with session.transaction():
                added, conflicts = await session.add(progress.kind, made) if made else (0, [])
                texts = {line.number: line.text for line in batch.lines}
                texts |= {line.number: line.text for line in batch.invalid}
                found = sorted((*invalid, *conflicts), key=lambda each: each.line)
                size = rejected.write(progress.kind, [(each, texts[each.line]) for each in found])
                counts = ImportCounts(added, len(made) - added - len(conflicts), len(found))
                progress = _advance(progress, batch, counts, size)
                await session.save(progress)
            report(progress)
        return progress


def _make_rows(
    rows: ImportRows, kind: ImportKind, batch: Batch
) -> tuple[Sequence[ImportedRow], list[RejectedLine]]:
    made: list[ImportedRow] = []
    rejected = [RejectedLine(line.number, line.reason) for line in batch.invalid]
    make = rows.maker(kind)
    for line in batch.lines:
        try:
            made.append(make(line))
        except InvalidRequest as error:
            rejected.append(RejectedLine(line.number, f"{error.field}: {error.detail}"))
    return made, rejected


def _advance(
    progress: ImportProgress, batch: Batch, counts: ImportCounts, rejected_bytes: int
) -> ImportProgress:
    kind = progress.kind or ImportKind.USER
    total = progress.counts.get(kind, ImportCounts()).plus(counts)
    progress = replace(
        progress,
        offset=batch.offset,
        line=batch.line,
        rejected_bytes=progress.rejected_bytes | {kind: rejected_bytes},
        counts=progress.counts | {kind: total},
    )
    return replace(progress, kind=NEXT_KIND[kind], offset=0, line=1) if batch.is_last else progress
