"""Faults on purpose: `python -m tests.faults [SCENARIO…]` runs all scenarios, or those named.

Each prints its figures and the promises that it saw broken; the exit code is 1 if there are any.
All of them together take less than a quarter of an hour.
"""

import sys
import time
from collections.abc import Callable

from tests.faults import (
    api_kills,
    clock_jumps,
    full_disk,
    mail_kills,
    postgres_faults,
    races,
    random_schedules,
    redis_faults,
    shutdown,
    smtp_faults,
)
from tests.faults.report import ScenarioReport

SCENARIOS: dict[str, Callable[[], ScenarioReport]] = {
    "api-kills": api_kills.run,
    "mail-kills": mail_kills.run,
    "smtp": smtp_faults.run,
    "redis": redis_faults.run,
    "postgres": postgres_faults.run,
    "full-disk": full_disk.run,
    "shutdown": shutdown.run,
    "moved-clock": clock_jumps.run,
    "races": races.run,
    "schedules": random_schedules.run,
}

BUDGET_SECONDS = 15 * 60


def main() -> None:
    """Run what was named, and end with 1 if a promise was broken."""
    named = sys.argv[1:] or list(SCENARIOS)
    if unknown := set(named) - SCENARIOS.keys():
        sys.exit(f"There is no scenario {', '.join(sorted(unknown))}: {', '.join(SCENARIOS)}.")
    began, broken = time.monotonic(), 0
    for name in named:
        started = time.monotonic()
        figures = _run(SCENARIOS[name])
        figures.show(name, time.monotonic() - started)
        broken += len(figures.violations)
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(named)} scenarios, {broken} broken promises, {seconds:.0f} s\n")
    sys.exit(bool(broken) or seconds > BUDGET_SECONDS)


def _run(scenario: Callable[[], ScenarioReport]) -> ScenarioReport:
    """Run one; that it fails is no reason to leave the others out."""
    try:
        return scenario()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told
        return ScenarioReport(violations=[f"the scenario failed: {error!r}"])


if __name__ == "__main__":
    main()
