"""Imports of users, codes and referrals: their rows, their progress, and rejected lines."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role


class ImportKind(StrEnum):
    """The types of lines, in the order of import: later ones refer to earlier ones."""

    USER = "user"
    CODE = "code"
    REFERRAL = "referral"


class ImportConflict(StrEnum):
    """Reasons why a valid line is rejected."""

    EMAIL_TAKEN = "email-taken"
    ID_TAKEN = "id-taken"
    EXTERNAL_ID_TAKEN = "external-id-taken"
    CODE_TAKEN = "code-taken"
    ACTIVE_CODE_EXISTS = "active-code-exists"
    UNKNOWN_USER = "unknown-user"
    UNKNOWN_REFERRER = "unknown-referrer"
    UNKNOWN_CODE = "unknown-code"
    SELF_REFERRAL = "self-referral"
    ALREADY_REFERRED = "already-referred"


@dataclass(slots=True)
class ImportedUser:
    """A row of `users`.

    Without `has_id` the id was made from the line: the same line has the same last 10 bytes of it.
    `email` and `email_key` are None in an erased account.
    """

    line: int
    id: UUID
    has_id: bool
    email: str | None
    email_key: str | None
    external_id: str | None
    password_hash: str | None
    password_cost: int | None
    role: Role
    locale: Locale
    email_verified: bool
    notify_on_referral: bool
    created_at: datetime
    blocked_at: datetime | None
    erased_at: datetime | None


@dataclass(slots=True)
class ImportedCode:
    """A row of `codes`; one of `user_id` and `user_key`, a canonical address, names the owner."""

    line: int
    id: UUID
    has_id: bool
    user_id: UUID | None
    user_key: str | None
    text: str
    created_at: datetime
    expires_at: datetime
    max_uses: int | None
    uses: int
    enabled: bool
    deleted_at: datetime | None


@dataclass(slots=True)
class ImportedReferral:
    """A row of `referrals`; users are named as in `ImportedCode`.

    `joined_at` is None for the time when the referred user was created.
    """

    line: int
    id: UUID
    user_id: UUID | None
    user_key: str | None
    referrer_id: UUID | None
    referrer_key: str | None
    code: str | None
    status: ReferralStatus
    held: bool
    reason: str | None
    joined_at: datetime | None


ImportedRow = ImportedUser | ImportedCode | ImportedReferral


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that changed nothing."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """The numbers of lines of a type; `unchanged` were imported before."""

    added: int = 0
    unchanged: int = 0
    rejected: int = 0

    def plus(self, other: "ImportCounts") -> "ImportCounts":
        """Return the sums."""
        return ImportCounts(
            self.added + other.added,
            self.unchanged + other.unchanged,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """How far an import is: it reads the file once for each kind of line.

    `offset` and `line` are those of the next line. `rejected_bytes` are the sizes of the files of
    rejected lines, and `counts` the results, both by kind. `kind` is None at the end.
    """

    kind: ImportKind | None = ImportKind.USER
    offset: int = 0
    line: int = 1
    rejected_bytes: dict[ImportKind, int] = field(default_factory=dict)
    counts: dict[ImportKind, ImportCounts] = field(default_factory=dict)
