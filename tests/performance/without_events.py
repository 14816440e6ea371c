"""The service without events: `python -m tests.performance.without_events run …`.

Its code and schema are the same, so the difference is what events cost.
"""

from referral.adapters.jobs.periodic_tasks import PeriodicTaskRunner
from referral.adapters.postgres.repositories.events import PostgresEventLog
from referral.cli import main
from referral.core.entities.events import Event


async def _add_nothing(_: PostgresEventLog, *__: Event) -> None:
    """Forget the events."""


async def _run_nothing(_: PeriodicTaskRunner) -> None:
    """Publish nothing."""


# Spawned server processes import this module again.
PostgresEventLog.add = _add_nothing  # type: ignore[assignment,method-assign]
PeriodicTaskRunner.run = _run_nothing  # type: ignore[assignment,method-assign]

if __name__ == "__main__":
    main()
