"""Fingerprints of e-mail addresses: what is stored instead of the address."""

from referral.core.entities.users import User
from referral.core.ports.security import Fingerprinter


def email_fingerprints(fingerprinter: Fingerprinter, user: User) -> tuple[bytes, ...]:
    """Return the fingerprints of a user's address by each key of the service, the newest first."""
    return fingerprinter.compute(b"address:" + user.email_key.encode())
