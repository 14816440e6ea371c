"""What a scenario counted, and which promises it saw broken."""

import sys
from dataclasses import dataclass, field


@dataclass
class Figures:
    """Numbers to be printed, and a line for each promise that did not hold."""

    counted: dict[str, object] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def count(self, **numbers: object) -> None:
        """Take numbers down."""
        self.counted |= numbers

    def promise(self, *, holds: bool, that: str) -> None:
        """Take down a promise that does not hold."""
        if not holds:
            self.broken.append(that)

    def show(self, name: str, seconds: float) -> None:
        """Print them."""
        sys.stdout.write(f"{name} ({seconds:.0f} s)\n")
        for what, number in self.counted.items():
            sys.stdout.write(f"  {what.replace('_', ' ')}: {_short(number)}\n")
        for line in self.broken:
            sys.stdout.write(f"  BROKEN: {line}\n")
        sys.stdout.flush()


def _short(number: object) -> object:
    return round(number, 3) if isinstance(number, float) else number
