"""Whether the service can do its work."""

from dataclasses import dataclass

from referral.core.errors import Unavailable
from referral.core.ports import Part


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask the database, without which nothing works, and name the state of the other parts."""

    database: Part
    others: tuple[Part, ...]

    async def __call__(self) -> dict[str, str]:
        """Return a word for each part; raises `Unavailable` when the database does not answer."""
        states = {self.database.name: await self.database.check()}
        for part in self.others:
            try:
                states[part.name] = await part.check()
            except Unavailable:
                states[part.name] = "unavailable"
        return states
