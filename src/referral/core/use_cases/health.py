"""Whether the service can do its work."""

from dataclasses import dataclass

from referral.core.errors import Unavailable
from referral.core.ports.system import HealthProbe


@dataclass(frozen=True, slots=True)
class PartHealth:
    """How a part is, in a word or two."""

    part: str
    answers: bool
    word: str
    error: Unavailable | None = None


@dataclass(frozen=True, slots=True)
class CheckParts:
    """Ask every part that is in use, third parties among them."""

    parts: tuple[HealthProbe, ...]

    async def __call__(self) -> list[PartHealth]:
        """Return how each part is."""
        return [await self._state(part) for part in self.parts]

    async def _state(self, part: HealthProbe) -> PartHealth:
        try:
            return PartHealth(part.name, answers=True, word=await part.check())
        except Unavailable as error:
            word = "does not answer" if error.detail == error.default else error.detail
            return PartHealth(part.name, answers=False, word=word, error=error)


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask the database, without which nothing works, and name the state of the other parts."""

    database: HealthProbe
    others: tuple[HealthProbe, ...]

    async def __call__(self) -> dict[str, str]:
        """Return a word for each part; raises `Unavailable` when the database does not answer."""
        states = {self.database.name: await self.database.check()}
        for part in self.others:
            try:
                states[part.name] = await part.check()
            except Unavailable:
                states[part.name] = "unavailable"
        return states
