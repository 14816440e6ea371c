"""Statistics of the programme and of one referrer, and the list of referrers."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from referral.core.entities.statistics import (
    ReferrerFigures,
    ReferrerFilter,
    Statistics,
    StatisticsRange,
    UserStatistics,
)
from referral.core.errors import Unauthenticated
from referral.core.ports.repositories import Database

CHANGES_BATCH_SIZE = 1000
"""Changes that one transaction adds to the figures, so that it ends before its timeout."""


@dataclass(frozen=True, slots=True)
class ShowStatistics:
    """Count the registrations, referrals, decisions and codes of all users by interval."""

    database: Database

    async def __call__(self, wanted: StatisticsRange) -> list[tuple[datetime, Statistics]]:
        """Return the figures of each interval, with its start."""
        async with self.database.read() as repositories:
            rows = await repositories.statistics.count_all(wanted)
        return wanted.fill(rows, Statistics())


@dataclass(frozen=True, slots=True)
class ShowUserStatistics:
    """Count the referrals of one user by interval."""

    database: Database

    async def __call__(
        self, user_id: UUID, wanted: StatisticsRange
    ) -> list[tuple[datetime, UserStatistics]]:
        """Return the figures of each interval; raises `Unauthenticated` for an erased user."""
        async with self.database.read() as repositories:
            if await repositories.users.find(user_id) is None:
                raise Unauthenticated
            rows = await repositories.statistics.count_of(user_id, wanted)
        return wanted.fill(rows, UserStatistics())


@dataclass(frozen=True, slots=True)
class ListReferrers:
    """List the referrers with the most confirmed referrals."""

    database: Database

    async def __call__(self, wanted: ReferrerFilter, limit: int) -> list[ReferrerFigures]:
        """Return the referrers, the most confirmed first."""
        async with self.database.read() as repositories:
            return await repositories.statistics.list_referrers(wanted, limit)


@dataclass(frozen=True, slots=True)
class AddStatisticsChanges:
    """Add committed changes to the figures by day. Readers count those that are not added yet."""

    database: Database

    async def __call__(self) -> bool:
        """Return whether there were any."""
        batch_size, total = CHANGES_BATCH_SIZE, 0
        while batch_size == CHANGES_BATCH_SIZE:
            async with self.database.begin() as repositories:
                batch_size = await repositories.statistics.add_changes(CHANGES_BATCH_SIZE)
            total += batch_size
        return total > 0
