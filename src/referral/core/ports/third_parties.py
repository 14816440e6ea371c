"""Third-party services."""

from datetime import timedelta
from typing import Protocol

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile


class EmailVerifier(Protocol):
    """Verifies the deliverability of e-mail addresses."""

    @property
    def supports_recheck(self) -> bool:
        """Whether a later check of the same address may return another result."""
        ...

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:
        """Return the deliverability; raises `Unavailable` without a response in time."""
        ...


class Enrichment(Protocol):
    """Finds public profiles by e-mail address."""

    async def find(self, email: str, time_limit: timedelta) -> Profile | None:
        """Return the profile, if any; raises `Unavailable` without a response in time."""
        ...
