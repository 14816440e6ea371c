"""The figures of a scenario, and the promises that it broke."""

import sys
from dataclasses import dataclass, field


@dataclass
class ScenarioReport:
    """Figures to print, and a line for each promise that did not hold."""

    values: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def record(self, **numbers: object) -> None:
        """Add figures."""
        self.values |= numbers

    def check(self, *, holds: bool, promise: str) -> None:
        """Record a promise that does not hold."""
        if not holds:
            self.violations.append(promise)

    def show(self, name: str, seconds: float) -> None:
        """Print the report."""
        sys.stdout.write(f"{name} ({seconds:.0f} s)\n")
        for label, number in self.values.items():
            sys.stdout.write(f"  {label.replace('_', ' ')}: {_short(number)}\n")
        for line in self.violations:
            sys.stdout.write(f"  BROKEN: {line}\n")
        sys.stdout.flush()


def _short(number: object) -> object:
    return round(number, 3) if isinstance(number, float) else number
