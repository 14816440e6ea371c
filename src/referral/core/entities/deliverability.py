"""Results of third-party e-mail verification."""

from datetime import timedelta
from enum import StrEnum

VERIFICATION_TTL = timedelta(days=30)
"""How long a verification result is reused."""


class Deliverability(StrEnum):
    """The deliverability of an e-mail address, in EmailHunter's terms."""

    UNKNOWN = "unknown"
    VALID = "valid"
    INVALID = "invalid"
    ACCEPT_ALL = "accept_all"
    WEBMAIL = "webmail"
    DISPOSABLE = "disposable"
    BLOCKED = "blocked"

    @property
    def blocks_registration(self) -> bool:
        """Whether a registration with such an e-mail address is rejected."""
        return self in {Deliverability.INVALID, Deliverability.DISPOSABLE}
