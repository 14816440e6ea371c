"""Rate limits: groups, rates and results."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

RATE_PATTERN = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour|day)")

NETWORK_RATE_FACTOR = 10
"""The limit of an IPv6 network (/48), as a multiple of the limit of one site (/64) in it."""


class RateLimitGroup(StrEnum):
    """Groups of requests that share a limit.

    Groups that end in `-network` count all sites of one IPv6 network together. Groups that begin
    with `attempts` throttle password guessing, see `core/policies/login_throttle.py`.
    """

    REGISTER = "register"
    REGISTER_NETWORK = "register-network"
    TOKEN = "token"  # noqa: S105 - the name of a limit
    TOKEN_NETWORK = "token-network"  # noqa: S105 - the name of a limit
    LOOKUP = "lookup"
    LOOKUP_NETWORK = "lookup-network"
    CODES = "codes"
    LOGIN_ACCOUNT = "attempts-account"
    LOGIN_TOTAL = "attempts-all"
    LOGIN_CLIENT_IP = "attempts-first"
    THIRD_PARTY_BURST = "third-party-burst"
    THIRD_PARTY_PACE = "third-party-pace"


NETWORK_GROUPS = {
    RateLimitGroup.REGISTER: RateLimitGroup.REGISTER_NETWORK,
    RateLimitGroup.TOKEN: RateLimitGroup.TOKEN_NETWORK,
    RateLimitGroup.LOOKUP: RateLimitGroup.LOOKUP_NETWORK,
}
"""Groups that are counted by client IP, with the group of the client's IPv6 network."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` requests in each window; None means unlimited."""

    limit: int | None
    window: timedelta

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """Parse `5/hour` or `off`; raises `ValueError`."""
        if text == "off":
            return UNLIMITED
        match = RATE_PATTERN.fullmatch(text)
        if match is None:
            detail = "must be 'off' or a number (at most 999999) per second, minute, hour or day"
            raise ValueError(f"{detail}, such as '5/hour'")
        return cls(int(match[1]), timedelta(**{f"{match[2]}s": 1}))

    def scaled_by(self, factor: int) -> "Rate":
        """Return the rate multiplied by a factor."""
        return self if self.limit is None else Rate(self.limit * factor, self.window)


UNLIMITED = Rate(None, timedelta())


def network_rates(rates: Mapping[RateLimitGroup, Rate]) -> dict[RateLimitGroup, Rate]:
    """Return the rates of IPv6 networks, derived from the rates of single clients."""
    return {
        NETWORK_GROUPS[group]: rate.scaled_by(NETWORK_RATE_FACTOR) for group, rate in rates.items()
    }


@dataclass(frozen=True, slots=True)
class RateLimitResult:
    """The result of counting one request; `reset_seconds` is the time left in the window."""

    allowed: bool
    limit: int
    window_seconds: int
    remaining: int
    reset_seconds: int
