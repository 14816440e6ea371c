"""What is counted, by group, and how often it may be done."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

RATE = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour|day)")

SITES_PER_NETWORK = 10
"""An IPv6 network (/48) may do this many times what one site in it (/64) may."""


class LimitGroup(StrEnum):
    """Everything that is counted against a limit.

    The groups that end in `-network` count all sites of one IPv6 network together. The groups that
    begin with `attempts` slow down password guessing, see `core/policies/login_throttle.py`.
    """

    REGISTER = "register"
    REGISTER_NETWORK = "register-network"
    TOKEN = "token"  # noqa: S105 - the name of a limit
    TOKEN_NETWORK = "token-network"  # noqa: S105 - the name of a limit
    LOOKUP = "lookup"
    LOOKUP_NETWORK = "lookup-network"
    CODES = "codes"
    ATTEMPTS_ACCOUNT = "attempts-account"
    ATTEMPTS_ALL = "attempts-all"
    ATTEMPTS_FIRST = "attempts-first"
    THIRD_PARTY_BURST = "third-party-burst"
    THIRD_PARTY_PACE = "third-party-pace"


NETWORK_GROUPS = {
    LimitGroup.REGISTER: LimitGroup.REGISTER_NETWORK,
    LimitGroup.TOKEN: LimitGroup.TOKEN_NETWORK,
    LimitGroup.LOOKUP: LimitGroup.LOOKUP_NETWORK,
}
"""The groups that are counted by network address, and the group of the whole IPv6 network."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `number` within a time; None for no limit."""

    number: int | None
    within: timedelta

    @classmethod
    def read(cls, text: str) -> "Rate":
        """Parse `5/hour` or `off`; raises `ValueError` with what is wrong."""
        if text == "off":
            return OFF
        found = RATE.fullmatch(text)
        if found is None:
            fault = "must be 'off' or a number (at most 999999) per second, minute, hour or day"
            raise ValueError(f"{fault}, such as '5/hour'")
        return cls(int(found[1]), timedelta(**{f"{found[2]}s": 1}))

    def times(self, factor: int) -> "Rate":
        """Return a rate that allows several times as much."""
        return self if self.number is None else Rate(self.number * factor, self.within)


OFF = Rate(None, timedelta())


def network_rates(rates: Mapping[LimitGroup, Rate]) -> dict[LimitGroup, Rate]:
    """Return the rates of IPv6 networks that follow from those of single callers."""
    return {NETWORK_GROUPS[group]: rate.times(SITES_PER_NETWORK) for group, rate in rates.items()}


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """Where a caller stands with a limit of so many in so many seconds."""

    granted: bool
    limit: int
    seconds: int
    remaining: int
    resets_in: int
