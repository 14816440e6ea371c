"""Third parties that know something about addresses."""

from datetime import timedelta
from typing import Protocol

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile


class EmailVerifier(Protocol):
    """A third party that knows whether mail to an address arrives."""

    @property
    def supports_recheck(self) -> bool:
        """Whether the same question may get a better answer another time."""
        ...

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:
        """Ask, for so long at most; raises `Unavailable` when there is no answer."""
        ...


class Enrichment(Protocol):
    """A third party that knows the owners of addresses."""

    async def find(self, email: str, time_limit: timedelta) -> Profile | None:
        """Return what is known, if anything; raises `Unavailable` when there is no answer yet."""
        ...
