"""Fault injection: `python -m tests.faults [SCENARIO…]` runs all scenarios, or the named ones.

Each prints its figures and the promises that were broken, which set the exit code to 1. All
scenarios together take less than 20 minutes.
"""

import sys
import time
from collections.abc import Callable

from tests.faults import (
    api_kills,
    clock_jumps,
    full_disk,
    mail_kills,
    patroni_failover,
    point_in_time,
    postgres_failover,
    postgres_faults,
    races,
    random_schedules,
    redis_faults,
    rolling_upgrade,
    shutdown,
    smtp_faults,
    webhook_kills,
)
from tests.faults.report import ScenarioReport

SCENARIOS: dict[str, Callable[[], ScenarioReport]] = {
    "api-kills": api_kills.run,
    "mail-kills": mail_kills.run,
    "webhook-kills": webhook_kills.run,
    "smtp": smtp_faults.run,
    "redis": redis_faults.run,
    "postgres": postgres_faults.run,
    "backup": point_in_time.run,
    "failover": postgres_failover.run,
    "patroni": patroni_failover.run,
    "full-disk": full_disk.run,
    "upgrade": rolling_upgrade.run,
    "shutdown": shutdown.run,
    "moved-clock": clock_jumps.run,
    "races": races.run,
    "schedules": random_schedules.run,
}

BUDGET_SECONDS = 20 * 60


def main() -> None:
    """Run the named scenarios; exit with 1 if a promise was broken."""
    names = sys.argv[1:] or list(SCENARIOS)
    if unknown := set(names) - SCENARIOS.keys():
        sys.exit(
            f"Unknown scenario {', '.join(sorted(unknown))}. Choose from {', '.join(SCENARIOS)}."
        )
    started, broken = time.monotonic(), 0
    for name in names:
        scenario_started = time.monotonic()
        report = _run(SCENARIOS[name])
        report.show(name, time.monotonic() - scenario_started)
        broken += len(report.violations)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{len(names)} scenarios, {broken} broken promises, {seconds:.0f} s\n")
    sys.exit(bool(broken) or seconds > BUDGET_SECONDS)


def _run(scenario: Callable[[], ScenarioReport]) -> ScenarioReport:
    """Run a scenario; an exception is reported and does not stop the others."""
    try:
        return scenario()
    except Exception as error:  # noqa: BLE001 - any failure is reported
        return ScenarioReport(violations=[f"the scenario failed: {error!r}"])


if __name__ == "__main__":
    main()
