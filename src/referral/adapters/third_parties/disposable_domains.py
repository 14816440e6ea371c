"""Verification without asking anybody: a list of domains of addresses to throw away."""

from datetime import timedelta

from disposable_email_domains import blocklist

from referral.core.entities.deliverability import Deliverability


class OfflineVerifier:
    """See the port `EmailVerifier`."""

    may_learn = False

    async def verify(self, mailbox: str, within: timedelta) -> Deliverability:  # noqa: ARG002 - at once
        """See the port. What is below a domain of the list is disposable as well."""
        labels = mailbox.rpartition("@")[2].lower().split(".")
        domains = (".".join(labels[start:]) for start in range(len(labels)))
        found = any(domain in blocklist for domain in domains)
        return Deliverability.DISPOSABLE if found else Deliverability.UNKNOWN
