"""Health checks."""

import pytest

from referral.core.errors import Unavailable
from referral.core.use_cases.health import CheckComponents, CheckHealth
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


class ExhaustedVerifier:
    """A third party that explains why it is unavailable."""

    name = "verifier"

    async def check(self) -> str:
        raise Unavailable("no verifications left this month")


async def test_check_reports_every_component() -> None:
    """An unavailable component does not end the check; its own explanation is reported, if any."""
    silent = FakeHealthProbe("mail", None)
    probes = (FakeHealthProbe("database", "ok"), silent, ExhaustedVerifier())
    database, mail, verifier = await CheckComponents(probes)()
    assert (database.name, database.is_available, database.status) == ("database", True, "ok")
    assert (mail.name, mail.is_available, mail.status) == ("mail", False, "does not answer")
    assert (verifier.name, verifier.is_available) == ("verifier", False)
    assert verifier.status == "no verifications left this month"
    assert (database.error, str(verifier.error)) == (None, verifier.status)
    assert isinstance(mail.error, Unavailable)
