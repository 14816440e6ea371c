"""Offline e-mail verification by a list of disposable domains."""

from datetime import timedelta

from disposable_email_domains import blocklist

from referral.core.entities.deliverability import Deliverability


class DisposableDomainVerifier:
    """Recognizes disposable addresses without a request to a third party."""

    supports_recheck = False

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:  # noqa: ARG002 - at once
        """Return `DISPOSABLE` for a listed domain and its subdomains, else `UNKNOWN`."""
        labels = email.rpartition("@")[2].lower().split(".")
        domains = (".".join(labels[start:]) for start in range(len(labels)))
        is_disposable = any(domain in blocklist for domain in domains)
        return Deliverability.DISPOSABLE if is_disposable else Deliverability.UNKNOWN
