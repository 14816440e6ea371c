"""Fingerprints of e-mail addresses, which are stored instead of addresses."""

from referral.core.entities.users import User
from referral.core.ports.security import Fingerprinter


def email_fingerprints(fingerprinter: Fingerprinter, user: User) -> tuple[bytes, ...]:
    """Return the fingerprints of a user's address: one for each signing key, newest first."""
    return fingerprinter.compute(b"address:" + user.email_key.encode())
