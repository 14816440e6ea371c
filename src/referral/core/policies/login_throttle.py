"""Login throttling, which slows down password guessing without locking out owners."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.entities.rate_limits import Rate, RateLimitGroup
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import RateLimiter

TOTAL_LOGIN_RATE_FACTOR = 100
"""The login limit for all accounts together, as a multiple of the limit for one account."""


def login_throttle_rates(login_rate: Rate) -> dict[RateLimitGroup, Rate]:
    """Return the rates of the throttle, derived from the login rate of one account."""
    first = login_rate if login_rate.limit is None else Rate(1, login_rate.window)
    return {
        RateLimitGroup.LOGIN_ACCOUNT: login_rate,
        RateLimitGroup.LOGIN_TOTAL: login_rate.scaled_by(TOTAL_LOGIN_RATE_FACTOR),
        RateLimitGroup.LOGIN_CLIENT_IP: first,
    }


@dataclass(frozen=True, slots=True)
class LoginThrottle:
    """Count logins per account and in total.

    Over a limit, only the first login of each client IP in a window is allowed: an attacker needs
    a new IP for every guess, while the owner can still log in. The limit per client IP, over all
    accounts, belongs to the route.
    """

    limits: RateLimiter

    async def hit(self, account: str, client_ip: str) -> None:
        """Count one login, or raise `TooManyRequests`.

        Call this before verifying the password: otherwise concurrent logins exceed the limit.
        """
        for group, key, client_key in (
            (RateLimitGroup.LOGIN_ACCOUNT, account, f"{account} {client_ip}"),
            (RateLimitGroup.LOGIN_TOTAL, "", client_ip),
        ):
            first = await self.limits.hit(RateLimitGroup.LOGIN_CLIENT_IP, f"{group} {client_key}")
            result = await self.limits.hit(group, key)
            refused = result is not None and not result.allowed
            if refused and first is not None and not first.allowed:
                detail = "Too many logins. Try again later."
                raise TooManyRequests(detail, retry_after=timedelta(seconds=first.reset_seconds))
