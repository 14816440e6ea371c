"""Throttling of password guesses."""

from datetime import timedelta

from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup
from referral.core.errors import TooManyRequests
from referral.core.policies.login_throttle import LoginThrottle, login_throttle_rates
from tests.support.fakes.caching import FakeRateLimiter

LIMITS = {
    RateLimitGroup.LOGIN_CLIENT_IP: 1,
    RateLimitGroup.LOGIN_ACCOUNT: 3,
    RateLimitGroup.LOGIN_TOTAL: 10,
}


async def count_refusals(
    login_throttle: LoginThrottle, email: str, client_ip: str, times: int
) -> int:
    """Count the rejections of a number of logins."""
    refused = 0
    for _ in range(times):
        try:
            await login_throttle.hit(email, client_ip)
        except TooManyRequests as error:
            refused += error.retry_after == timedelta(seconds=60)
    return refused


async def test_account_limit_allows_one_login_per_new_client_ip() -> None:
    """Another client IP has one login left, so that the owner is not locked out."""
    attempts = LoginThrottle(FakeRateLimiter(LIMITS))
    assert await count_refusals(attempts, "ann", "192.0.2.1", 5) == 2
    assert await count_refusals(attempts, "ann", "192.0.2.2", 2) == 1
    assert await count_refusals(attempts, "bob", "192.0.2.1", 1) == 0


async def test_total_limit_allows_one_login_per_new_client_ip() -> None:
    """One password tried on many accounts is throttled as well."""
    attempts = LoginThrottle(FakeRateLimiter(LIMITS))
    assert sum([await count_refusals(attempts, f"u{n}", "192.0.2.1", 1) for n in range(15)]) == 5
    assert await count_refusals(attempts, "ann", "192.0.2.2", 1) == 0


async def test_without_limits_no_login_is_rejected() -> None:
    """Groups without a limit are off."""
    assert await count_refusals(LoginThrottle(FakeRateLimiter()), "ann", "192.0.2.1", 50) == 0


def test_throttle_rates_follow_from_the_login_rate() -> None:
    """Per account the login rate, for all accounts a hundred times that, per new client IP one."""
    found = login_throttle_rates(Rate.parse("30/minute"))
    amounts = [found[group].limit for group in LIMITS]
    assert (amounts[:2], {rate.window for rate in found.values()}) == (
        [1, 30],
        {timedelta(minutes=1)},
    )
    assert amounts[2] == 3000
    assert set(login_throttle_rates(UNLIMITED).values()) == {UNLIMITED}


async def test_accounts_are_counted_apart() -> None:
    """Guesses for one account take nothing from the limit of another one."""
    throttle = LoginThrottle(FakeRateLimiter(LIMITS))
    assert await count_refusals(throttle, "ann", "192.0.2.1", 3) == 0
    assert await count_refusals(throttle, "bob", "192.0.2.1", 3) == 0
    assert await count_refusals(throttle, "bob", "192.0.2.1", 1) == 1
