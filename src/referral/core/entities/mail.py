"""Mails, and their share of an address' limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.users import Locale, User

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MailReservationRequest:
    """What a mail to a user begins with: one of so many `places` that the address has within a
    time, or none where it takes none, and maybe the token of its link.
    """

    mail_id: UUID
    user_id: UUID
    requested_at: datetime
    slots: int | None
    window: timedelta
    token: OneTimeToken | None = None


@dataclass(frozen=True, slots=True)
class MailReservation:
    """Whom a mail is for, and when there is a place for it when there is none now."""

    user: User
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to be written: a template's name, and the facts that it tells.

    Every attempt at a mail has the same `id`. `mute` is the address that ends mails of this kind,
    `qr` a link that is shown as a picture too.
    """

    id: UUID
    to: str
    locale: Locale
    template: str
    variables: Mapping[str, object]
    unsubscribe_url: str | None = None
    qr_url: str | None = None
