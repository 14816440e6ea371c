"""Health checks."""

import pytest

from referral.core.errors import Unavailable
from referral.core.use_cases.health import CheckHealth
from tests.support.fakes.system import FakeHealthProbe


async def test_health_names_every_dependency() -> None:
    """Each reports its own status; an optional dependency that is unavailable is no failure."""
    others = (
        FakeHealthProbe("cache", "ok"),
        FakeHealthProbe("mail", None),
        FakeHealthProbe("jobs", "3 waiting"),
    )
    statuses = await CheckHealth(FakeHealthProbe("database", "ok"), others)()
    assert statuses == {
        "database": "ok",
        "cache": "ok",
        "mail": "unavailable",
        "jobs": "3 waiting",
    }


async def test_health_check_fails_without_the_database() -> None:
    """An unavailable database is the only failure."""
    with pytest.raises(Unavailable):
        await CheckHealth(FakeHealthProbe("database", None), (FakeHealthProbe("cache", "ok"),))()
