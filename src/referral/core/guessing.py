"""Keeping those who guess passwords slow, and the owner's way in open."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.errors import TooManyRequests
from referral.core.ports import Limits


@dataclass(frozen=True, slots=True)
class Attempts:
    """Count attempts to log in: by account, and in all.

    Past a limit only the first attempt from an address is heard in each window. So a password is
    guessed no faster than one finds new addresses, and the owner, elsewhere, still gets in. How
    much one address may try, on whatever accounts, is a limit of the route.
    """

    limits: Limits

    async def count(self, account: str, address: str) -> None:
        """Count one more, or raise `TooManyRequests`; before the password is looked at, so that
        attempts at the same time do not slip through.
        """
        for group, whom, pair in (
            ("attempts-account", account, f"{account} {address}"),
            ("attempts-all", "", address),
        ):
            first = await self.limits.take("attempts-first", f"{group} {pair}")
            allowance = await self.limits.take(group, whom)
            refused = allowance is not None and not allowance.granted
            if refused and first is not None and not first.granted:
                detail = "Too many attempts to log in. Try again later."
                raise TooManyRequests(detail, retry_after=timedelta(seconds=first.resets_in))
