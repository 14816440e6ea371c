"""Whether the service can do its work."""

import pytest

from referral.core.errors import Unavailable
from referral.core.use_cases.health import CheckHealth
from tests.support.fakes.ports import FakeHealthProbe


async def test_every_part_is_named() -> None:
    """Each part answers with its own word; one that does not answer fails nothing."""
    others = (
        FakeHealthProbe("cache", "ok"),
        FakeHealthProbe("mail", None),
        FakeHealthProbe("jobs", "3 waiting"),
    )
    states = await CheckHealth(FakeHealthProbe("database", "ok"), others)()
    assert states == {
        "database": "ok",
        "cache": "ok",
        "mail": "unavailable",
        "jobs": "3 waiting",
    }


async def test_nothing_works_without_the_database() -> None:
    """A database that does not answer is the one failure."""
    with pytest.raises(Unavailable):
        await CheckHealth(FakeHealthProbe("database", None), (FakeHealthProbe("cache", "ok"),))()
