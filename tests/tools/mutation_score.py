"""Report the share of mutants of `src/referral/core` that tests in `tests/core` killed.

`make mutants` runs it after mutmut. Below 95 % the command fails.
"""

import json
import sys
from pathlib import Path

MIN_PERCENT = 95
STATISTICS = Path("mutants/mutmut-cicd-stats.json")
CLEAR_RESULTS = ("killed", "timeout", "segfault")
"""Outcomes that count as killed: a mutant that never ends or crashes would not pass unseen."""


def percent_killed(statistics: dict[str, int]) -> float:
    """Return the killed mutants per hundred, without the ones excluded by a pragma."""
    killed = sum(statistics[outcome] for outcome in CLEAR_RESULTS)
    return 100 * killed / (statistics["total"] - statistics["skipped"])


def main() -> int:
    """Print the score, and return the exit status."""
    statistics = json.loads(STATISTICS.read_text())
    percent = percent_killed(statistics)
    sys.stdout.write(
        f"{percent:.1f} % of {statistics['total']} mutants killed; "
        "docs/mutants.md names the survivors that are no loss\n"
    )
    return 0 if percent >= MIN_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
