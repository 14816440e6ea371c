"""Mails and reservations of mail quota."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.email_links import OneTimeToken
from referral.core.entities.users import Locale, User


@dataclass(frozen=True, slots=True)
class MailReservationRequest:
    """A request to reserve one of `slots` mails in `window` for a user, and to store a token.

    With `slots` None the mail is not counted.
    """

    mail_id: UUID
    user_id: UUID
    requested_at: datetime
    slots: int | None
    window: timedelta
    token: OneTimeToken | None = None


@dataclass(frozen=True, slots=True)
class MailReservation:
    """The recipient of a mail. `retry_at` is set if the quota has no free slot before that time."""

    user: User
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to render and send: a template's name and its variables.

    `id` is the same for every attempt, as the `Message-ID` derives from it. `unsubscribe_url` is
    for the `List-Unsubscribe` header; `qr_url` is also embedded as a QR code.
    """

    id: UUID
    to: str
    locale: Locale
    template: str
    variables: Mapping[str, object]
    unsubscribe_url: str | None = None
    qr_url: str | None = None
