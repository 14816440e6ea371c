"""Health checks."""

from dataclasses import dataclass

from referral.core.errors import Unavailable
from referral.core.ports.system import HealthProbe


@dataclass(frozen=True, slots=True)
class PartHealth:
    """The health of one component, with its status in a word or two."""

    name: str
    is_available: bool
    status: str
    error: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class CheckParts:
    """Check all components in use, including third parties."""

    parts: tuple[HealthProbe, ...]

    async def __call__(self) -> list[PartHealth]:
        """Return the health of each component."""
        return [await self._check(probe) for probe in self.parts]

    async def _check(self, probe: HealthProbe) -> PartHealth:
        try:
            return PartHealth(probe.name, is_available=True, status=await probe.check())
        except Unavailable as error:
            status = "does not answer" if error.detail == error.default_detail else error.detail
            return PartHealth(probe.name, is_available=False, status=status, error=error)


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Check readiness: the database is required, other components are reported only."""

    database: HealthProbe
    others: tuple[HealthProbe, ...]

    async def __call__(self) -> dict[str, str]:
        """Return each component's status; raises `Unavailable` if the database is down."""
        statuses = {self.database.name: await self.database.check()}
        for probe in self.others:
            try:
                statuses[probe.name] = await probe.check()
            except Unavailable:
                statuses[probe.name] = "unavailable"
        return statuses
