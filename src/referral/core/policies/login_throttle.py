"""Keeping those who guess passwords slow, and the owner's way in open."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.entities.limits import LimitGroup, Rate
from referral.core.errors import TooManyRequests
from referral.core.ports.caching import Limits

ACCOUNTS_AT_ONCE = 100
"""Guessing on all accounts together is slowed down at this many times the limit of one account."""


def guessing_rates(log_ins: Rate) -> dict[LimitGroup, Rate]:
    """Return the limits on guessing, which follow from the limit on log-ins."""
    first = log_ins if log_ins.number is None else Rate(1, log_ins.within)
    return {
        LimitGroup.ATTEMPTS_ACCOUNT: log_ins,
        LimitGroup.ATTEMPTS_ALL: log_ins.times(ACCOUNTS_AT_ONCE),
        LimitGroup.ATTEMPTS_FIRST: first,
    }


@dataclass(frozen=True, slots=True)
class LoginThrottle:
    """Count attempts to log in: by account, and in all.

    Over a limit, only the first attempt of a client IP in each window is heard. So every further
    guess needs a new address, and the owner can still log in. How much one client IP may try, on
    whatever accounts, is a limit of the route.
    """

    limits: Limits

    async def count(self, account: str, address: str) -> None:
        """Count one more, or raise `TooManyRequests`; before the password is looked at, so that
        attempts at the same time do not slip through.
        """
        for group, whom, pair in (
            (LimitGroup.ATTEMPTS_ACCOUNT, account, f"{account} {address}"),
            (LimitGroup.ATTEMPTS_ALL, "", address),
        ):
            first = await self.limits.take(LimitGroup.ATTEMPTS_FIRST, f"{group} {pair}")
            allowance = await self.limits.take(group, whom)
            refused = allowance is not None and not allowance.granted
            if refused and first is not None and not first.granted:
                detail = "Too many attempts to log in. Try again later."
                raise TooManyRequests(detail, retry_after=timedelta(seconds=first.resets_in))
