"""Referral codes and their rules."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from referral.core.errors import CodeExhausted, CodeExpired, InvalidRequest

MIN_CODE_LIFETIME = timedelta(minutes=1)
MAX_CODE_LIFETIME = timedelta(days=365)
MINUTE = timedelta(minutes=1)
MAX_CODE_LIFETIME_MINUTES = MAX_CODE_LIFETIME // MINUTE
CLOCK_SKEW_TOLERANCE = timedelta(seconds=5)
"""Tolerance at both lifetime bounds, for the client's clock skew and the network latency."""

MIN_CODE_CHARACTERS = 3
MAX_CODE_CHARACTERS = 32
CODE_PATTERN = re.compile(rf"[A-Za-z0-9-]{{{MIN_CODE_CHARACTERS},{MAX_CODE_CHARACTERS}}}")
"""Valid texts of codes; a text that does not match is never looked up."""

GENERATED_CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capital letters without the similar 0 and O, 1, I and L."""

GENERATED_CODE_CHARACTERS = 8
"""31 ** 8 = 8.5e11 possible texts, so collisions are rare."""

MAX_USES = 2**31 - 1
"""The highest `max_uses` of a code: the maximum of a PostgreSQL integer."""


class CodeStatus(StrEnum):
    """The status of a code at one point in time."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Code:
    """A referral code.

    `enabled` is false after the code was deactivated or retired. A database constraint ensures
    that a user has at most one enabled code. An enabled code may be spent: expired or exhausted.
    """

    id: UUID
    user_id: UUID
    text: str
    created_at: datetime
    expires_at: datetime
    max_uses: int | None
    uses: int
    enabled: bool

    @property
    def is_exhausted(self) -> bool:
        """Whether the code has no uses left."""
        return self.max_uses is not None and self.uses >= self.max_uses

    def status(self, now: datetime) -> CodeStatus:
        """Return the status at `now`: expired takes precedence, then exhausted."""
        if self.expires_at <= now:
            return CodeStatus.EXPIRED
        if self.is_exhausted:
            return CodeStatus.EXHAUSTED
        return CodeStatus.ACTIVE if self.enabled else CodeStatus.INACTIVE

    def is_active(self, now: datetime) -> bool:
        """Return whether a user can register with the code at `now`."""
        return self.status(now) is CodeStatus.ACTIVE

    def validated(self) -> "Code":
        """Return the code, or raise `InvalidRequest` for an invalid text or `max_uses`."""
        if not CODE_PATTERN.fullmatch(self.text):
            bounds = f"{MIN_CODE_CHARACTERS} to {MAX_CODE_CHARACTERS}"
            detail = f"A code has {bounds} characters: letters A to Z, digits and hyphens."
            raise InvalidRequest(detail, field="code")
        if self.max_uses is not None and not 1 <= self.max_uses <= MAX_USES:
            raise InvalidRequest(f"Send a number from 1 to {MAX_USES:,}.", field="max_uses")
        return self

    def activated(self, now: datetime) -> "Code":
        """Return the code enabled, or raise `CodeExpired` or `CodeExhausted`."""
        match self.status(now):
            case CodeStatus.EXPIRED:
                raise CodeExpired
            case CodeStatus.EXHAUSTED:
                raise CodeExhausted
            case _:
                return replace(self, enabled=True)

    def deactivated(self) -> "Code":
        """Return the code disabled."""
        return replace(self, enabled=False)


@dataclass(frozen=True, slots=True)
class Expiry:
    """The requested expiry of a code: a time, or a number of minutes from now; not both."""

    expires_at: datetime | None = None
    lifetime_minutes: int | None = None

    def resolve(self, now: datetime) -> datetime:
        """Return the expiry time in UTC, or raise `InvalidRequest`."""
        if (self.expires_at is None) == (self.lifetime_minutes is None):
            detail = "Send exactly one of 'expires_at' and 'lifetime_minutes'."
            raise InvalidRequest(detail, field="expires_at")
        if self.lifetime_minutes is not None:
            return now + self._lifetime(self.lifetime_minutes)
        if self.expires_at is None or self.expires_at.tzinfo is None:
            raise InvalidRequest("Send a time with a UTC offset.", field="expires_at")
        lifetime = self.expires_at - now
        shortest = MIN_CODE_LIFETIME - CLOCK_SKEW_TOLERANCE
        if not shortest <= lifetime <= MAX_CODE_LIFETIME + CLOCK_SKEW_TOLERANCE:
            detail = "Send a time between 1 minute and 365 days from now."
            raise InvalidRequest(detail, field="expires_at")
        return self.expires_at.astimezone(UTC)

    @staticmethod
    def _lifetime(minutes: int) -> timedelta:
        if not 1 <= minutes <= MAX_CODE_LIFETIME_MINUTES:
            detail = f"Send a number of minutes from 1 to {MAX_CODE_LIFETIME_MINUTES:,}."
            raise InvalidRequest(detail, field="lifetime_minutes")
        return minutes * MINUTE
