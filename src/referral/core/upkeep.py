"""Deleting what is of no more use."""

from dataclasses import dataclass
from datetime import timedelta

from referral.core.attempts import KEPT
from referral.core.model import GOOD_FOR
from referral.core.ports import Clock, Database

LOG_KEPT = timedelta(days=7)
MAILS_KEPT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Prune:
    """Delete ended sessions, dead links, old answers and verdicts, marks of mails, and the log of
    jobs.
    """

    clock: Clock
    database: Database

    async def __call__(self) -> None:
        """Prune, a bounded number of rows in each transaction."""
        now = self.clock.now()
        more = True
        while more:
            async with self.database.begin() as records:
                left = [
                    await records.sessions.prune(now),
                    await records.one_time_tokens.prune(now),
                    await records.attempts.prune(now - KEPT),
                    await records.mails.prune(now - MAILS_KEPT),
                    await records.verdicts.prune(now - GOOD_FOR),
                    await records.jobs.prune(now - LOG_KEPT),
                ]
            more = any(left)
