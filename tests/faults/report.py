"""What a scenario counted, and which promises it saw broken."""

import sys
from dataclasses import dataclass, field


@dataclass
class ScenarioReport:
    """Numbers to be printed, and a line for each promise that did not hold."""

    values: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def record(self, **numbers: object) -> None:
        """Take numbers down."""
        self.values |= numbers

    def check(self, *, holds: bool, promise: str) -> None:
        """Take down a promise that does not hold."""
        if not holds:
            self.violations.append(promise)

    def show(self, name: str, seconds: float) -> None:
        """Print them."""
        sys.stdout.write(f"{name} ({seconds:.0f} s)\n")
        for what, number in self.values.items():
            sys.stdout.write(f"  {what.replace('_', ' ')}: {_short(number)}\n")
        for line in self.violations:
            sys.stdout.write(f"  BROKEN: {line}\n")
        sys.stdout.flush()


def _short(number: object) -> object:
    return round(number, 3) if isinstance(number, float) else number
