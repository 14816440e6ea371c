"""Rates as an operator writes them, and those that follow from them."""

from datetime import timedelta

import pytest

from referral.core.entities.rate_limits import UNLIMITED, Rate, RateLimitGroup, network_rates


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5/second", Rate(5, timedelta(seconds=1))),
        ("20/minute", Rate(20, timedelta(minutes=1))),
        ("60/hour", Rate(60, timedelta(hours=1))),
        ("999999/day", Rate(999_999, timedelta(days=1))),
        ("off", UNLIMITED),
    ],
)
def test_a_rate_is_a_number_in_a_unit_of_time(text: str, rate: Rate) -> None:
    """Or switched off."""
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "5", "0/hour", "-1/hour", "05/hour", "1000000/hour", "5/month", "5/hours", "5 per hour",
     "5/2 hour", "5/hour\n", " 5/hour", "OFF", "\u0665/hour"],
)  # fmt: skip
def test_anything_else_is_no_rate(text: str) -> None:
    """Whatever other libraries may make of it."""
    with pytest.raises(ValueError, match="such as '5/hour'"):
        Rate.parse(text)


def test_a_network_may_do_ten_times_as_much_as_a_site_in_it() -> None:
    """Unless there is no limit at all."""
    found = network_rates(
        {RateLimitGroup.TOKEN: Rate.parse("30/minute"), RateLimitGroup.LOOKUP: UNLIMITED}
    )
    assert found == {
        RateLimitGroup.TOKEN_NETWORK: Rate.parse("300/minute"),
        RateLimitGroup.LOOKUP_NETWORK: UNLIMITED,
    }
