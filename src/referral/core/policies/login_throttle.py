"""Keeping those who guess passwords slow, and the owner's way in open."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.entities.rate_limits import Rate, RateLimitGroup
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import RateLimiter

TOTAL_LOGIN_RATE_FACTOR = 100
"""Guessing on all accounts together is slowed down at this many times the limit of one account."""


def login_throttle_rates(login_rate: Rate) -> dict[RateLimitGroup, Rate]:
    """Return the limits on guessing, which follow from the limit on log-ins."""
    first = login_rate if login_rate.limit is None else Rate(1, login_rate.window)
    return {
        RateLimitGroup.LOGIN_ACCOUNT: login_rate,
        RateLimitGroup.LOGIN_TOTAL: login_rate.scaled_by(TOTAL_LOGIN_RATE_FACTOR),
        RateLimitGroup.LOGIN_CLIENT_IP: first,
    }


@dataclass(frozen=True, slots=True)
class LoginThrottle:
    """Count attempts to log in: by account, and in all.

    Over a limit, only the first attempt of a client IP in each window is heard. So every further
    guess needs a new address, and the owner can still log in. How much one client IP may try, on
    whatever accounts, is a limit of the route.
    """

    limits: RateLimiter

    async def hit(self, account: str, client_ip: str) -> None:
        """Count one more, or raise `TooManyRequests`; before the password is looked at, so that
        attempts at the same time do not slip through.
        """
        for group, key, client_key in (
            (RateLimitGroup.LOGIN_ACCOUNT, account, f"{account} {client_ip}"),
            (RateLimitGroup.LOGIN_TOTAL, "", client_ip),
        ):
            first = await self.limits.hit(RateLimitGroup.LOGIN_CLIENT_IP, f"{group} {client_key}")
            result = await self.limits.hit(group, key)
            refused = result is not None and not result.allowed
            if refused and first is not None and not first.allowed:
                detail = "Too many attempts to log in. Try again later."
                raise TooManyRequests(detail, retry_after=timedelta(seconds=first.reset_seconds))
