"""The files of imports: JSON Lines, read in batches of bounded size."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from referral.core.entities.imports import ImportKind
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.ports.imports import Batch, InvalidLine, SourceLine

BATCH_LINES = 5_000
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends at the first of the two, so that long lines do not take much memory."""

MAX_LINE_BYTES = 64 * 1024
"""As of a request body."""

SKIPPED_BLOCK_BYTES = 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NUL_ESCAPE = b"\\u0000"

Time = Annotated[datetime, Meta(tz=True)]


class UserLine(Struct, tag_field="type", tag="user", forbid_unknown_fields=True):
    """A user. `blocked`, `notify_on_referral` and `erased` are written by `referral export`."""

    email: str | None = None
    id: UUID | None = None
    external_id: str | None = None
    email_verified: bool = False
    password_hash: str | None = None
    locale: Locale = Locale.EN
    role: Role = Role.MEMBER
    created_at: Time | None = None
    blocked: bool = False
    notify_on_referral: bool = True
    erased: bool = False


class CodeLine(Struct, tag_field="type", tag="code", forbid_unknown_fields=True):
    """A code. The text of a deleted one stays taken."""

    user: str
    code: str
    expires_at: Time
    id: UUID | None = None
    max_uses: int | None = None
    uses: int = 0
    active: bool = False
    created_at: Time | None = None
    deleted: bool = False


class ReferralLine(Struct, tag_field="type", tag="referral", forbid_unknown_fields=True):
    """A referral. Without a status it counts."""

    user: str
    referrer: str
    code: str | None = None
    status: ReferralStatus = ReferralStatus.CONFIRMED
    held: bool = False
    reason: str | None = None
    joined_at: Time | None = None


class AnyLine(Struct):
    """The type of a line."""

    type: ImportKind


KIND = msgspec.json.Decoder(AnyLine)
LINES: dict[ImportKind, msgspec.json.Decoder[UserLine | CodeLine | ReferralLine]] = {
    ImportKind.USER: msgspec.json.Decoder(UserLine),
    ImportKind.CODE: msgspec.json.Decoder(CodeLine),
    ImportKind.REFERRAL: msgspec.json.Decoder(ReferralLine),
}
SPACINGS = ('{{"type":"{}"', '{{"type": "{}"', '{{ "type": "{}"', '{{"type" : "{}"')
PREFIXES = {kind: tuple(each.format(kind).encode() for each in SPACINGS) for kind in ImportKind}
"""The usual beginnings of lines, by which lines of other kinds are skipped without decoding."""

ANY_PREFIX = tuple(prefix for prefixes in PREFIXES.values() for prefix in prefixes)


class JsonLinesFile:
    """A file of lines. Blank lines are skipped."""

    def __init__(self, path: Path) -> None:
        """Open the file, and compute the digest of its contents."""
        self._file = path.open("rb")
        self.digest = hashlib.file_digest(self._file, "sha256").digest()
        self.size = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, kind: ImportKind, offset: int, line: int) -> Batch:
        """Read and decode the next lines."""
        self._file.seek(offset)
        lines: list[SourceLine] = []
        invalid: list[InvalidLine] = []
        number, position, text = line, offset, b"\n"
        while number < line + BATCH_LINES and position < offset + BATCH_BYTES:
            text = self._file.readline(MAX_LINE_BYTES + 1)
            if not text:
                break
            position += len(text) + self._skip_rest(text)
            decoded = _decode(kind, number, text)
            if isinstance(decoded, SourceLine):
                lines.append(decoded)
            elif decoded is not None:
                invalid.append(decoded)
            number += 1
        return Batch(lines, invalid, position, number, is_last=not text)

    def _skip_rest(self, text: bytes) -> int:
        """Skip the rest of a line that is too long; return its length."""
        skipped = 0
        if len(text) > MAX_LINE_BYTES:
            while not text.endswith(b"\n") and (text := self._file.readline(SKIPPED_BLOCK_BYTES)):
                skipped += len(text)
        return skipped


def _decode(kind: ImportKind, number: int, text: bytes) -> SourceLine | InvalidLine | None:
    """Return a line of this kind; None for another one, or for a blank line."""
    is_kind = text.startswith(PREFIXES[kind])
    if not is_kind and text.startswith(ANY_PREFIX):
        return None
    try:
        _check(text)
        is_kind = is_kind or KIND.decode(text).type is kind
        return SourceLine(number, text, LINES[kind].decode(text)) if is_kind else None
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        # Lines whose kind is unknown are read once for each kind, and rejected once.
        is_told = (is_kind or kind is ImportKind.USER) and text.strip()
        return InvalidLine(number, text, f"invalid: {reason}") if is_told else None


def _check(text: bytes) -> None:
    if len(text) > MAX_LINE_BYTES:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES // 1024} KiB")
    if text.startswith(BYTE_ORDER_MARK):
        raise ValueError("the line begins with a byte-order mark: save the file as plain UTF-8")
    if NUL_ESCAPE in text or b"\0" in text:
        raise ValueError("the line contains a NUL character")
