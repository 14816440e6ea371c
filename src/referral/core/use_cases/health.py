"""Whether the service can do its work."""

from dataclasses import dataclass

from referral.core.errors import Unavailable
from referral.core.ports.system import HealthProbe


@dataclass(frozen=True, slots=True)
class PartHealth:
    """How a part is, in a word or two."""

    name: str
    is_available: bool
    status: str
    error: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class CheckParts:
    """Ask every part that is in use, third parties among them."""

    parts: tuple[HealthProbe, ...]

    async def __call__(self) -> list[PartHealth]:
        """Return how each part is."""
        return [await self._check(part) for part in self.parts]

    async def _check(self, part: HealthProbe) -> PartHealth:
        try:
            return PartHealth(part.name, is_available=True, status=await part.check())
        except Unavailable as error:
            status = "does not answer" if error.detail == error.default_detail else error.detail
            return PartHealth(part.name, is_available=False, status=status, error=error)


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask the database, without which nothing works, and name the state of the other parts."""

    database: HealthProbe
    others: tuple[HealthProbe, ...]

    async def __call__(self) -> dict[str, str]:
        """Return a word for each part; raises `Unavailable` when the database does not answer."""
        statuses = {self.database.name: await self.database.check()}
        for part in self.others:
            try:
                statuses[part.name] = await part.check()
            except Unavailable:
                statuses[part.name] = "unavailable"
        return statuses
