"""Rates in the settings, and the rates derived from them."""

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
def test_rate_is_parsed(text: str, rate: Rate) -> None:
    """A number per unit of time, or `off`."""
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "5", "0/hour", "-1/hour", "05/hour", "1000000/hour", "5/month", "5/hours", "5 per hour",
     "5/2 hour", "5/hour\n", " 5/hour", "OFF", "\u0665/hour"],
)  # fmt: skip
def test_invalid_rate_is_rejected(text: str) -> None:
    """Including formats that other libraries accept."""
    with pytest.raises(ValueError, match="such as") as raised:
        Rate.parse(text)
    assert str(raised.value) == (
        "must be 'off' or a number (at most 999999) per second, minute, hour or day, "
        "such as '5/hour'"
    )


def test_network_rate_is_ten_times_the_site_rate() -> None:
    """Unless there is no limit."""
    found = network_rates(
        {RateLimitGroup.TOKEN: Rate.parse("30/minute"), RateLimitGroup.LOOKUP: UNLIMITED}
    )
    assert found == {
        RateLimitGroup.TOKEN_NETWORK: Rate.parse("300/minute"),
        RateLimitGroup.LOOKUP_NETWORK: UNLIMITED,
    }
