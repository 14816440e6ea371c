"""Mail delivery."""

from typing import Protocol

from referral.core.entities.mail import Mail, MailReservation, MailReservationRequest


class MailReservations(Protocol):
    """Batched reservations of mail quota, many in one round trip; raises `Unavailable`."""

    async def reserve(self, request: MailReservationRequest) -> MailReservation | None:
        """Reserve a slot as `MailQuota` does, and store the token if there is a free slot.

        Returns None if the user does not exist, or has confirmed the address that the token is for.
        """
        ...


class Mailer(Protocol):
    """Sends mails; raises `MailRefused` for permanent and `Unavailable` for temporary failures."""

    async def send(self, mail: Mail) -> None: ...
