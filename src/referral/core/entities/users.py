"""Users: accounts, e-mail addresses and profiles."""

import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from referral.core.entities.deliverability import Deliverability

UNCONFIRMED_ACCOUNT_LIFETIME = timedelta(days=30)
"""How long an account may stay unconfirmed; it is erased afterwards."""


NO_PASSWORD = "!"  # noqa: S105 - the hash of no password
"""The password hash of a user without a password, as in /etc/shadow; it matches no password.

A login with it takes as long as any other, because it is verified like an outdated hash.
"""


class Role(StrEnum):
    """The role of an account; an admin may see the referrals of all users."""

    MEMBER = "member"
    ADMIN = "admin"


class Locale(StrEnum):
    """Languages of mails and pages."""

    EN = "en"
    RU = "ru"


@dataclass(frozen=True, slots=True)
class Profile:
    """Public data about the owner of an e-mail address."""

    name: str | None = None
    title: str | None = None
    company: str | None = None
    domain: str | None = None
    country: str | None = None
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An e-mail address as entered, and its canonical form, which all spellings share."""

    original: str
    email_key: str

    @property
    def local_part(self) -> str:
        """The part before the `@`, in NFC."""
        return unicodedata.normalize("NFC", self.original.rpartition("@")[0])


@dataclass(frozen=True, slots=True)
class User:
    """An account. `email` is the address as entered; `email_key` is its canonical form, unique.

    `confirm_by` is the time when an unconfirmed account is erased; None for never. `external_id`
    is the user's id in the product that created the account or signs the user in.
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
    external_id: str | None = None

    def unblocked(self, now: datetime) -> "User":
        """Return the account unblocked, with a new confirmation deadline if it had one."""
        confirm_by = self.confirm_by and now + UNCONFIRMED_ACCOUNT_LIFETIME
        return replace(self, blocked_at=None, confirm_by=confirm_by)

    @property
    def is_replaceable(self) -> bool:
        """Whether the account may be erased for the confirmed owner of its address.

        Nobody has confirmed it, no product has created it, and it is neither an admin's nor
        blocked: the address of a blocked account stays taken.
        """
        is_member = self.role is Role.MEMBER
        return is_member and not (self.email_verified or self.external_id or self.blocked_at)

    @property
    def email_address(self) -> EmailAddress:
        """The address as entered, with its canonical form."""
        return EmailAddress(self.email, self.email_key)

    @property
    def delivery_email(self) -> str:
        """The address for deliveries: local part as entered, domain in ASCII.

        The case of the local part may matter; an ASCII domain avoids the need for SMTPUTF8.
        """
        return f"{self.email.rpartition('@')[0]}@{self.email_key.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True)
class EmailConfirmationPolicy:
    """Whether users must confirm their e-mail address before their referral counts."""

    required: bool

    def is_satisfied_by(self, user: User) -> bool:
        """Return whether the user's address is confirmed or need not be."""
        return user.email_verified or not self.required

    def deadline(self, now: datetime) -> datetime | None:
        """Return the confirmation deadline of an account that is created at `now`."""
        return now + UNCONFIRMED_ACCOUNT_LIFETIME if self.required else None


@dataclass(frozen=True, slots=True)
class Referrer:
    """A user's referrer; `email` is None if the viewer may not see it."""

    id: UUID
    email: str | None
