"""Validation of imported lines, and the rows that are made from them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from referral.core.entities.audit import validated_reason
from referral.core.entities.codes import (
    CODE_PATTERN,
    MAX_CODE_CHARACTERS,
    MAX_USES,
    MIN_CODE_CHARACTERS,
)
from referral.core.entities.external_ids import validate_external_id
from referral.core.entities.imports import (
    ImportedCode,
    ImportedReferral,
    ImportedRow,
    ImportedUser,
    ImportKind,
)
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import NO_PASSWORD
from referral.core.errors import InvalidRequest
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.imports import CodeLine, ReferralLine, SourceLine, UserLine
from referral.core.ports.security import Fingerprinter, PasswordHasher

CLOCK_SKEW_TOLERANCE = timedelta(minutes=5)
"""Tolerance for times of the other service that are in the future here."""

RANDOM_BYTES = 10
"""The bytes of a UUIDv7 (RFC 9562) after its time."""

VERSION_AND_VARIANT_MASK = (0xF << 76) | (0b11 << 62)
VERSION_7_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
UUID_CHARACTERS = 36


@dataclass(frozen=True, slots=True)
class ImportRows:
    """Make rows from lines; each method raises `InvalidRequest` with the name of the field.

    `now` is the start of the import, and the default of times.
    """

    email_parser: EmailParser
    fingerprinter: Fingerprinter
    password_hasher: PasswordHasher
    now: datetime

    def maker(self, kind: ImportKind) -> Callable[[SourceLine], ImportedRow]:
        """Return the function for lines of a kind."""
        return {
            ImportKind.USER: self._make_user,
            ImportKind.CODE: self._make_code,
            ImportKind.REFERRAL: self._make_referral,
        }[kind]

    def _make_user(self, source: SourceLine) -> ImportedRow:
        line = cast("UserLine", source.value)
        created_at = self._past(line.created_at, "created_at") or self.now
        if line.erased:
            return self._make_erased_user(source, line, created_at)
        if line.email is None:
            raise InvalidRequest("The field is missing.", field="email")
        email = self.email_parser.parse(line.email)
        password_hash = line.password_hash
        return ImportedUser(
            line=source.number,
            id=line.id or self._make_id(source, created_at),
            has_id=line.id is not None,
            email=email.original,
            email_key=email.email_key,
            external_id=_external_id(line.external_id),
            password_hash=NO_PASSWORD if password_hash is None else password_hash,
            password_cost=None
            if password_hash is None
            else self.password_hasher.cost(password_hash),
            role=line.role,
            locale=line.locale,
            email_verified=line.email_verified,
            notify_on_referral=line.notify_on_referral,
            created_at=created_at,
            blocked_at=self.now if line.blocked else None,
            erased_at=None,
        )

    def _make_erased_user(
        self, source: SourceLine, line: UserLine, created_at: datetime
    ) -> ImportedUser:
        if line.id is None:
            raise InvalidRequest("An erased user needs an id.", field="id")
        if line.email or line.external_id or line.password_hash:
            raise InvalidRequest("An erased user has no personal data.", field="erased")
        return ImportedUser(
            line=source.number,
            id=line.id,
            has_id=True,
            email=None,
            email_key=None,
            external_id=None,
            password_hash=None,
            password_cost=None,
            role=line.role,
            locale=line.locale,
            email_verified=False,
            notify_on_referral=line.notify_on_referral,
            created_at=created_at,
            blocked_at=self.now if line.blocked else None,
            erased_at=self.now,
        )

    def _make_code(self, source: SourceLine) -> ImportedRow:
        line = cast("CodeLine", source.value)
        if line.active and line.deleted:
            raise InvalidRequest("A deleted code is not active.", field="active")
        created_at = self._past(line.created_at, "created_at") or self.now
        user_id, user_key = self._user(line.user, "user")
        return ImportedCode(
            line=source.number,
            id=line.id or self._make_id(source, created_at),
            has_id=line.id is not None,
            user_id=user_id,
            user_key=user_key,
            text=_code_text(line.code),
            created_at=created_at,
            expires_at=_in_utc(line.expires_at, "expires_at"),
            max_uses=_max_uses(line.max_uses),
            uses=_within(line.uses, 0, "uses"),
            enabled=line.active,
            deleted_at=self.now if line.deleted else None,
        )

    def _make_referral(self, source: SourceLine) -> ImportedRow:
        line = cast("ReferralLine", source.value)
        if line.held and line.status is not ReferralStatus.PENDING:
            raise InvalidRequest("Only a pending referral is held.", field="held")
        joined_at = self._past(line.joined_at, "joined_at")
        user_id, user_key = self._user(line.user, "user")
        referrer_id, referrer_key = self._user(line.referrer, "referrer")
        return ImportedReferral(
            line=source.number,
            id=self._make_id(source, joined_at or self.now),
            user_id=user_id,
            user_key=user_key,
            referrer_id=referrer_id,
            referrer_key=referrer_key,
            code=None if line.code is None else _code_text(line.code),
            status=line.status,
            held=line.held,
            reason=None if line.reason is None else validated_reason(line.reason),
            joined_at=joined_at,
        )

    def _user(self, text: str, field: str) -> tuple[UUID | None, str | None]:
        """Return the id or the canonical address that names a user."""
        if "@" not in text:
            try:
                if len(text) == UUID_CHARACTERS:
                    return UUID(text), None
            except ValueError:
                pass
            raise InvalidRequest("Name the user by address or id.", field=field)
        try:
            return None, self.email_parser.parse(text).email_key
        except InvalidRequest as error:
            raise InvalidRequest(error.detail, field=field) from error

    def _past(self, time: datetime | None, field: str) -> datetime | None:
        if time is None:
            return None
        time = _in_utc(time, field)
        if time > self.now + CLOCK_SKEW_TOLERANCE:
            raise InvalidRequest("The time is in the future.", field=field)
        return time

    def _make_id(self, source: SourceLine, time: datetime) -> UUID:
        """Return a UUIDv7 of a time, whose other bits follow from the text of the line.

        So a line that is imported again has the same bits, and nobody can tell the text from them.
        """
        digest = self.fingerprinter.compute(source.text)[0][:RANDOM_BYTES]
        milliseconds = max(0, int(time.timestamp() * 1000))
        value = milliseconds << 8 * RANDOM_BYTES | int.from_bytes(digest)
        return UUID(int=value & ~VERSION_AND_VARIANT_MASK | VERSION_7_AND_VARIANT)


def _external_id(text: str | None) -> str | None:
    return None if text is None else validate_external_id(text)


def _code_text(text: str) -> str:
    if not CODE_PATTERN.fullmatch(text):
        detail = f"Use {MIN_CODE_CHARACTERS} to {MAX_CODE_CHARACTERS} of A-Z, a-z, 0-9 and '-'."
        raise InvalidRequest(detail, field="code")
    return text


def _max_uses(number: int | None) -> int | None:
    return None if number is None else _within(number, 1, "max_uses")


def _within(number: int, least: int, field: str) -> int:
    if not least <= number <= MAX_USES:
        raise InvalidRequest(f"Use a number from {least} to {MAX_USES}.", field=field)
    return number


def _in_utc(time: datetime, field: str) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise InvalidRequest("The time is out of range.", field=field) from error
