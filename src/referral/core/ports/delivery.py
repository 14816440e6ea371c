"""Mails on their way out."""

from typing import Protocol

from referral.core.entities.mail import Mail, MailReservation, MailReservationRequest


class MailReservations(Protocol):
    """What mails to users begin with, many at a time in one round trip; raises `Unavailable`."""

    async def reserve(self, request: MailReservationRequest) -> MailReservation | None:
        """Count a mail as `Mails` does, and keep its token unless it has to wait.

        None for a user who is gone, or who confirmed the address that the token is to confirm.
        """
        ...


class Mailer(Protocol):
    """The way out for mails; raises `MailRefused` for good, `Unavailable` for now."""

    async def send(self, mail: Mail) -> None: ...
