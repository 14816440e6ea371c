"""Fingerprints of e-mail addresses, which are stored instead of addresses."""

from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import User
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprinter


def email_fingerprints(fingerprinter: Fingerprinter, user: User) -> tuple[bytes, ...]:
    """Return the fingerprints of a user's address: one for each signing key, newest first."""
    return fingerprinter.compute(b"address:" + user.email_key.encode())


async def save_referred_email(repositories: Repositories, user: User, fingerprint: bytes) -> None:
    """Store the fingerprint of an address that a user gives up, if its referral was confirmed."""
    referral = await repositories.referrals.find_by_referred(user.id)
    if referral is not None and referral.status is ReferralStatus.CONFIRMED:
        await repositories.referred_emails.add(fingerprint, referral.joined_at)
