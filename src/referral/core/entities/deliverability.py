"""Whether mail to an address arrives, as a third party says."""

from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


VERIFICATION_TTL = timedelta(days=30)
"""How long it counts what a third party said of an address."""


class Deliverability(StrEnum):
    """Whether mail to an address arrives, as a third party says."""

    UNKNOWN = "unknown"
    VALID = "valid"
    INVALID = "invalid"
    ACCEPT_ALL = "accept_all"
    WEBMAIL = "webmail"
    DISPOSABLE = "disposable"
    BLOCKED = "blocked"

    @property
    def blocks_registration(self) -> bool:
        """Whether nobody may register with such an address."""
        return self in {Deliverability.INVALID, Deliverability.DISPOSABLE}
