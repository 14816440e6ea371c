"""Users: accounts, their addresses and profiles."""

import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from referral.core.entities.deliverability import Deliverability

T = TypeVar("T")


CONFIRMATION_PERIOD = timedelta(days=30)
"""How long an account may stay unconfirmed before it is erased."""


class Role(StrEnum):
    """What an account may do beyond its own affairs."""

    MEMBER = "member"
    ADMIN = "admin"


class Locale(StrEnum):
    """The languages of mails and pages."""

    EN = "en"
    RU = "ru"


@dataclass(frozen=True, slots=True)
class Profile:
    """What is publicly known about the owner of an address."""

    name: str | None = None
    title: str | None = None
    company: str | None = None
    domain: str | None = None
    country: str | None = None
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An e-mail address: as typed, and in the form that all its spellings share."""

    original: str
    canonical: str

    @property
    def local_part(self) -> str:
        """What stands before the @-sign, in NFC."""
        return unicodedata.normalize("NFC", self.original.rpartition("@")[0])


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` is as typed; `email_key` is its canonical form, and unique.

    `confirm_by` is when an unconfirmed account is erased; None where confirmation is not required.
    """

    id: UUID
    email: str
    email_key: str
    password_hash: str
    role: Role
    locale: Locale
    email_verified: bool
    notify_on_referral: bool
    created_at: datetime
    blocked_at: datetime | None = None
    deliverability: Deliverability = Deliverability.UNKNOWN
    confirm_by: datetime | None = None

    def unblocked(self, now: datetime) -> "User":
        """Return the account without its block, and with the whole time to confirm it again."""
        confirm_by = self.confirm_by and now + CONFIRMATION_PERIOD
        return replace(self, blocked_at=None, confirm_by=confirm_by)

    @property
    def delivery_email(self) -> str:
        """Where mail goes: the local part as typed, since its case may matter, and the domain
        in ASCII, so that not every mail to an international domain needs SMTPUTF8.
        """
        return f"{self.email.rpartition('@')[0]}@{self.email_key.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class EmailConfirmationPolicy:
    """Whether a user has to confirm the address before the referral counts."""

    required: bool

    def is_satisfied_by(self, user: User) -> bool:
        """Tell whether nothing is left to confirm."""
        return user.email_verified or not self.required

    def deadline(self, now: datetime) -> datetime | None:
        """Return when an account that registers at `now` is erased unless it is confirmed."""
        return now + CONFIRMATION_PERIOD if self.required else None


@dataclass(frozen=True, slots=True)
class Referrer:
    """Whose code a user joined with; `email` is None for who may not see it."""

    id: UUID
    email: str | None
