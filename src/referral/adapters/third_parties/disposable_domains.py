"""Verification without asking anybody: a list of domains of addresses to throw away."""

from datetime import timedelta

from disposable_email_domains import blocklist

from referral.core.entities.deliverability import Deliverability


class DisposableDomainVerifier:
    """See the port `EmailVerifier`."""

    supports_recheck = False

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:  # noqa: ARG002 - at once
        """See the port. What is below a domain of the list is disposable as well."""
        labels = email.rpartition("@")[2].lower().split(".")
        domains = (".".join(labels[start:]) for start in range(len(labels)))
        is_disposable = any(domain in blocklist for domain in domains)
        return Deliverability.DISPOSABLE if is_disposable else Deliverability.UNKNOWN
