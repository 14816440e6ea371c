"""Offline e-mail verification by a list of disposable domains."""

from datetime import timedelta

from referral.adapters.disposable_domains import ListedDisposableDomains
from referral.core.entities.deliverability import Deliverability


class DisposableDomainVerifier:
    """Recognizes disposable addresses without a request to a third party."""

    supports_recheck = False

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:  # noqa: ARG002 - at once
        """Return `DISPOSABLE` for a listed domain and its subdomains, else `UNKNOWN`."""
        is_disposable = ListedDisposableDomains().contains(email.rpartition("@")[2])
        return Deliverability.DISPOSABLE if is_disposable else Deliverability.UNKNOWN
