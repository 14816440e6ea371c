"""The fake of imports: rows are added to the tables of the fake database."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.audit import AuditRecord
from referral.core.entities.codes import Code
from referral.core.entities.imports import (
    ImportConflict,
    ImportedCode,
    ImportedReferral,
    ImportedRow,
    ImportedUser,
    ImportKind,
    ImportProgress,
    RejectedLine,
)
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import Conflict
from tests.support.fakes.audit import FakeAuditLog
from tests.support.fakes.database import FakeDatabase
from tests.support.fakes.tables import Tables

Result = ImportConflict | bool
"""True for an added row, False for one that is there already."""


@dataclass
class FakeImportSession:
    """An import; its additions are dropped unless the transaction ends."""

    database: FakeDatabase
    digest: bytes
    started_at: datetime
    progress: ImportProgress
    dry_run: bool
    saved: dict[bytes, tuple[datetime, ImportProgress]]
    tables: Tables = field(default_factory=Tables)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        if self.dry_run:
            yield
            return
        before = self.saved[self.digest]
        try:
            async with self.database.begin() as repositories:
                self.tables = repositories.tables
                yield
        except BaseException:
            self.saved[self.digest] = before
            raise

    async def add(
        self, kind: ImportKind, rows: Sequence[ImportedRow]
    ) -> tuple[int, list[RejectedLine]]:
        adders: dict[ImportKind, Callable[..., Result]] = {
            ImportKind.USER: self._add_user,
            ImportKind.CODE: self._add_code,
            ImportKind.REFERRAL: self._add_referral,
        }
        results = [(row.line, adders[kind](row)) for row in rows]
        rejected = [RejectedLine(n, r) for n, r in results if isinstance(r, ImportConflict)]
        return sum(result is True for _, result in results), rejected

    async def save(self, progress: ImportProgress) -> None:
        if self.saved[self.digest][1] != self.progress:
            raise Conflict("Another process imports the same file.")
        self.progress = progress
        self.saved[self.digest] = (self.started_at, progress)

    async def record(self, record: AuditRecord) -> None:
        await FakeAuditLog(self.tables).add(record)

    async def finish(self) -> None:
        counted = [
            referral.code_id
            for referral in self.tables.referrals.values()
            if referral.status is not ReferralStatus.REJECTED
        ]
        for code in list(self.tables.codes.values()):
            uses = max(code.uses, counted.count(code.id))
            self.tables.codes[code.id] = replace(code, uses=uses)
        del self.saved[self.digest]

    def _add_user(self, row: ImportedUser) -> Result:
        users = self.tables.users
        known = users.get(row.id)
        owner = self._by_email(row.email_key)
        same = known if row.has_id else owner
        if same is not None and same.email_key == (row.email_key or ""):
            is_line = row.has_id or _is_same_line(same.id, row.id)
            is_named = row.external_id is not None and row.external_id == same.external_id
            if (is_line and row.external_id in {None, same.external_id}) or is_named:
                return False
        if owner is not None:
            return ImportConflict.EMAIL_TAKEN
        if known is not None:
            return ImportConflict.ID_TAKEN
        if row.external_id is not None and row.external_id in {
            user.external_id for user in users.values()
        }:
            return ImportConflict.EXTERNAL_ID_TAKEN
        users[row.id] = User(
            id=row.id,
            email=row.email or "",
            email_key=row.email_key or "",
            password_hash=row.password_hash or "",
            role=row.role,
            locale=row.locale,
            email_verified=row.email_verified,
            notify_on_referral=row.notify_on_referral,
            created_at=row.created_at,
            blocked_at=row.blocked_at,
            external_id=row.external_id,
        )
        if row.erased_at is not None:
            self.tables.erased_users[row.id] = row.erased_at
        if row.password_cost is not None:
            self.tables.password_costs[row.id] = row.password_cost
        return True

    def _add_code(self, row: ImportedCode) -> Result:
        codes, owner = self.tables.codes, self._find(row.user_id, row.user_key)
        if owner is None or (owner.id in self.tables.erased_users and not row.deleted_at):
            return ImportConflict.UNKNOWN_USER
        known = self._by_text(row.text)
        if known is not None:
            is_line = known.id == row.id if row.has_id else _is_same_line(known.id, row.id)
            return False if is_line and known.user_id == owner.id else ImportConflict.CODE_TAKEN
        if row.id in codes:
            return ImportConflict.ID_TAKEN
        code = Code(
            id=row.id,
            user_id=owner.id,
            text=row.text,
            created_at=row.created_at,
            expires_at=row.expires_at,
            max_uses=row.max_uses,
            uses=row.uses,
            enabled=row.enabled,
        )
        others = [each for each in codes.values() if each.user_id == owner.id and each.enabled]
        if code.enabled and others:
            is_spent = not replace(code, enabled=True).is_active(self.started_at)
            if not is_spent and others[0].is_active(self.started_at):
                return ImportConflict.ACTIVE_CODE_EXISTS
            if is_spent:
                code = replace(code, enabled=False)
            else:
                codes[others[0].id] = replace(others[0], enabled=False)
        codes[code.id] = code
        if row.deleted_at is not None:
            self.tables.deleted_codes[code.id] = row.deleted_at
        return True

    def _add_referral(self, row: ImportedReferral) -> Result:
        referred = self._find(row.user_id, row.user_key)
        referrer = self._find(row.referrer_id, row.referrer_key)
        code = None if row.code is None else self._by_text(row.code)
        if referred is None:
            return ImportConflict.UNKNOWN_USER
        if referrer is None:
            return ImportConflict.UNKNOWN_REFERRER
        if referrer.id == referred.id:
            return ImportConflict.SELF_REFERRAL
        if row.code is not None and (code is None or code.user_id != referrer.id):
            return ImportConflict.UNKNOWN_CODE
        code_id = code.id if code else None
        for known in self.tables.referrals.values():
            if known.referred_id == referred.id:
                is_same = (known.referrer_id, known.code_id) == (referrer.id, code_id)
                return False if is_same else ImportConflict.ALREADY_REFERRED
        self.tables.referrals[row.id] = Referral(
            id=row.id,
            referrer_id=referrer.id,
            referred_id=referred.id,
            code_id=code_id,
            code=row.code,
            status=row.status,
            held=row.held,
            reason=row.reason,
            joined_at=row.joined_at or referred.created_at,
            expires=False,
        )
        if row.status is not ReferralStatus.PENDING:
            self.tables.notified_referrals[row.id] = row.id
        return True

    def _find(self, user_id: UUID | None, email_key: str | None) -> User | None:
        return self.tables.users.get(user_id) if user_id else self._by_email(email_key)

    def _by_email(self, email_key: str | None) -> User | None:
        users = self.tables.users.values()
        return next((user for user in users if email_key and user.email_key == email_key), None)

    def _by_text(self, text: str) -> Code | None:
        codes = self.tables.codes.values()
        return next((code for code in codes if code.text.upper() == text.upper()), None)


class FakeImportStore:
    """Imports into the fake database."""

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self._saved: dict[bytes, tuple[datetime, ImportProgress]] = {}

    @asynccontextmanager
    async def open(
        self, digest: bytes, now: datetime, *, dry_run: bool
    ) -> AsyncIterator[FakeImportSession]:
        saved = {} if dry_run else self._saved
        started_at, progress = saved.setdefault(digest, (now, ImportProgress()))
        session = FakeImportSession(self._database, digest, started_at, progress, dry_run, saved)
        if not dry_run:
            yield session
            return
        with suppress(_EndOfDryRun):
            async with self._database.begin() as repositories:
                session.tables = repositories.tables
                yield session
                raise _EndOfDryRun


class _EndOfDryRun(Exception):
    """Ends the transaction of a dry run, which is dropped."""


def _is_same_line(one: UUID, other: UUID) -> bool:
    return one.bytes[6:] == other.bytes[6:]
