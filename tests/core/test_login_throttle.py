"""Slowing down those who guess passwords."""

from datetime import timedelta

from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from referral.core.errors import TooManyRequests
from referral.core.policies.login_throttle import LoginThrottle, login_throttle_rates
from tests.support.fakes.ports import FakeRateLimiter

LIMITS = {
    RateLimitGroup.LOGIN_CLIENT_IP: 1,
    RateLimitGroup.LOGIN_ACCOUNT: 3,
    RateLimitGroup.LOGIN_TOTAL: 10,
}


async def count_refusals(
    login_throttle: LoginThrottle, email: str, client_ip: str, times: int
) -> int:
    """Try so many times; return how often that was too often."""
    refused = 0
    for _ in range(times):
        try:
            await login_throttle.hit(email, client_ip)
        except TooManyRequests as error:
            refused += error.retry_after == timedelta(seconds=60)
    return refused


async def test_past_the_limit_of_an_account_only_newcomers_are_heard() -> None:
    """One address is refused, another has one try, which is what the owner needs."""
    attempts = LoginThrottle(FakeRateLimiter(LIMITS))
    assert await count_refusals(attempts, "ann", "192.0.2.1", 5) == 2
    assert await count_refusals(attempts, "ann", "192.0.2.2", 2) == 1
    assert await count_refusals(attempts, "bob", "192.0.2.1", 1) == 0


async def test_past_the_limit_on_all_accounts_only_newcomers_are_heard() -> None:
    """Trying one password on many accounts is slowed down as well."""
    attempts = LoginThrottle(FakeRateLimiter(LIMITS))
    assert sum([await count_refusals(attempts, f"u{n}", "192.0.2.1", 1) for n in range(15)]) == 5
    assert await count_refusals(attempts, "ann", "192.0.2.2", 1) == 0


async def test_without_limits_nothing_is_refused() -> None:
    """Switched off means off."""
    assert await count_refusals(LoginThrottle(FakeRateLimiter()), "ann", "192.0.2.1", 50) == 0


def test_the_limits_on_guessing_follow_from_the_limit_on_log_ins() -> None:
    """One account as often as one address, all accounts much more, and one try of a newcomer."""
    found = login_throttle_rates(Rate.parse("30/minute"))
    amounts = [found[group].limit for group in LIMITS]
    assert (amounts[:2], {rate.window for rate in found.values()}) == (
        [1, 30],
        {timedelta(minutes=1)},
    )
    assert (amounts[2] or 0) > 30
    assert set(login_throttle_rates(UNLIMITED).values()) == {UNLIMITED}
