"""Health checks."""

from dataclasses import dataclass

from referral.core.errors import Unavailable
from referral.core.ports.system import HealthProbe


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """The health of one component, with its status in a word or two."""

    name: str
    is_available: bool
    status: str
    error: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class CheckComponents:
    """Check all components in use, including third parties."""

    probes: tuple[HealthProbe, ...]

    async def __call__(self) -> list[ComponentHealth]:
        """Return the health of each component."""
        return [await self._check(probe) for probe in self.probes]

    async def _check(self, probe: HealthProbe) -> ComponentHealth:
        try:
            return ComponentHealth(probe.name, is_available=True, status=await probe.check())
        except Unavailable as error:
            status = "does not answer" if error.detail == error.default_detail else error.detail
            return ComponentHealth(probe.name, is_available=False, status=status, error=error)


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
